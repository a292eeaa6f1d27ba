"""The factorisation machine: its formula by hand, what it is told, and that it learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.experiments.simulator.factorisation import (
    FactorisationMachine,
    Inputs,
    fit_factorisation,
    predict_factorisation,
)
from rapport.experiments.simulator.metrics import log_losses

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def learnable() -> SessionData:
    return twin(n_users=400, n_items=60, seed=1)


def test_the_logits_are_the_formulas() -> None:
    """Every pair of fields once, with the weights of the behaviour."""
    torch.manual_seed(0)
    model = FactorisationMachine(12, 2, 3)
    torch.nn.init.normal_(model.weights.weight)
    codes, numbers = torch.tensor([[1, 5, 9]]), torch.tensor([[0.5, -2.0]])
    with torch.no_grad():
        logits = model(codes, numbers)[0]
        inputs = [*((1.0, model.factors.weight[c]) for c in codes[0])]
        inputs += [(float(x), v) for x, v in zip(numbers[0], model.number_factors, strict=True)]
        for behaviour in range(3):
            expected = model.number_weights.bias[behaviour] + model.weights.weight[codes[0], behaviour].sum()
            expected = expected + model.number_weights.weight[behaviour] @ numbers[0]
            for j, (x, v) in enumerate(inputs):
                for y, w in inputs[:j]:
                    expected = expected + (model.mix.weight[behaviour] * v * w).sum() * x * y
            torch.testing.assert_close(logits[behaviour], expected, rtol=1e-4, atol=1e-5)


def test_its_inputs_do_not_look_ahead(small_data: SessionData) -> None:
    """Later rows of others, and a row's own outcome, change nothing of what is told about it."""
    log = small_data.log
    rows = np.flatnonzero(log.time_ms >= small_data.test_from_ms)
    first_of_user = rows[np.unique(log.user[rows], return_index=True)[1]]
    feedback = log.feedback.copy()
    feedback[rows] = 1 - feedback[rows]
    poisoned = dataclasses.replace(small_data, log=dataclasses.replace(log, feedback=feedback))
    told, other = (Inputs(data, small_data.test_from_ms)(first_of_user) for data in (small_data, poisoned))
    assert all(torch.equal(a, b) for a, b in zip(told, other, strict=True))
    assert told[0].max() < Inputs(small_data, small_data.test_from_ms).n_codes


def test_it_learns_and_one_seed_gives_one_model(learnable: SessionData) -> None:
    model, again = fit_factorisation(learnable, 3), fit_factorisation(learnable, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    log = learnable.log
    rows = np.flatnonzero(log.time_ms >= learnable.test_from_ms)
    logits = predict_factorisation(model, Inputs(learnable, learnable.test_from_ms), rows)
    truth = log.feedback[rows, 0]
    rate = np.full(len(rows), log.feedback[log.time_ms < learnable.test_from_ms, 0].mean())
    assert (
        log_losses(truth, 1 / (1 + np.exp(-logits[:, 0].astype(float)))).mean() < log_losses(truth, rate).mean() - 0.01
    )
