"""A factorisation machine over users, items, their features and counted habits: for comparison with the user model.

logit_f = b_f + sum_j w_jf x_j + sum_{j<k} sum_d a_fd v_jd v_kd x_j x_k (Rendle, ICDM 2010), with a weight for each
behaviour f and factor d, so that all behaviours share the factors. It knows how often the user did each thing so far
and how the item fared, but nothing of order.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from rapport.datasets.schema import FloatArray, IntArray, SessionData
from rapport.envs.session.response.counts import counts_before, counts_of_earlier_rows, counts_on_earlier_days
from rapport.envs.session.response.fit import balanced_weights, cross_entropy
from rapport.envs.session.response.user_model import HABIT, item_features

EPOCHS, BATCH, LEARNING_RATE, FACTORS, DECAY = 3, 1_024, 2e-3, 16, 1.0


class FactorisationMachine(nn.Module):
    """See the module.

    Args:
        n_codes: values of all categorical fields together.
        n_numbers: real-valued inputs.
        n_behaviours: F.
    """

    def __init__(self, n_codes: int, n_numbers: int, n_behaviours: int) -> None:
        super().__init__()
        self.factors, self.weights = nn.Embedding(n_codes, FACTORS), nn.Embedding(n_codes, n_behaviours)
        nn.init.normal_(self.factors.weight, std=0.05)
        nn.init.zeros_(self.weights.weight)
        self.number_factors = nn.Parameter(0.05 * torch.randn(n_numbers, FACTORS))
        self.number_weights = nn.Linear(n_numbers, n_behaviours)
        self.mix = nn.Linear(FACTORS, n_behaviours, bias=False)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Logits, shape (R, F), of codes (R, fields) and numbers (R, n)."""
        vectors = torch.cat([self.factors(codes), numbers[..., None] * self.number_factors], dim=1)
        pairs = (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)) / 2
        logits: Tensor = self.weights(codes).sum(dim=1) + self.number_weights(numbers) + self.mix(pairs)
        return logits


class Inputs:
    """What the machine is told of rows of a log.

    Args:
        data: the log.
        until_ms: items are known as they fared before this time, or before the row's own day if that is earlier.
    """

    def __init__(self, data: SessionData, until_ms: int) -> None:
        log = data.log
        self._users = np.column_stack([np.arange(data.population.n_users), data.population.features.codes])
        self._items = np.column_stack([np.arange(data.catalog.n_items), item_features(data).codes])
        sizes = [data.population.n_users, *data.population.features.cardinalities]
        sizes += [data.catalog.n_items, *item_features(data).cardinalities]
        self.n_codes = sum(sizes)
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._log = log
        rows = log.feedback[log.time_ms < data.valid_from_ms]
        self._rates = ((rows == 1).sum(axis=0) + 1) / ((rows >= 0).sum(axis=0) + 2)
        of_items, late = counts_on_earlier_days(log), log.time_ms >= until_ms
        of_items[late] = counts_before(log, until_ms, data.catalog.n_items)[log.item[late]]
        self._counts = np.stack([counts_of_earlier_rows(log), of_items], axis=1)
        self.n_numbers = 2 * log.feedback.shape[1]

    def __call__(self, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Codes (R, fields) and numbers (R, 2 F)."""
        codes = np.concatenate([self._users[self._log.user[rows]], self._items[self._log.item[rows]]], axis=1)
        done, recorded = np.split(self._counts[rows], 2, axis=2)
        rate = (done + HABIT * self._rates) / (recorded + HABIT)
        odds = np.log(rate / (1 - rate)) - np.log(self._rates / (1 - self._rates))
        return torch.from_numpy(codes + self._offsets), torch.from_numpy(odds.reshape(len(rows), -1)).float()


def fit_factorisation(data: SessionData, seed: int) -> FactorisationMachine:
    """Fit to the training days; of the passes, the one that predicts the validation days best is kept."""
    inputs, log = Inputs(data, data.valid_from_ms), data.log
    train = np.flatnonzero(log.time_ms < data.valid_from_ms)
    held_back = np.flatnonzero((log.time_ms >= data.valid_from_ms) & (log.time_ms < data.test_from_ms))
    generator, plain = np.random.default_rng(seed), torch.ones_like(balanced_weights(log.feedback[:1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FactorisationMachine(inputs.n_codes, inputs.n_numbers, len(log.behaviours))
    tables = [model.factors.weight, model.weights.weight]
    rest = [model.number_factors, *model.number_weights.parameters(), model.mix.weight]
    groups = [{"params": tables, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    best, best_loss = model, float("inf")
    for _ in range(EPOCHS):
        order = generator.permutation(train)
        for rows in np.split(order, range(BATCH, len(order), BATCH)):
            loss = cross_entropy(model(*inputs(rows))[None], torch.from_numpy(log.feedback[rows])[None], plain)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        logits = torch.from_numpy(predict_factorisation(model, inputs, held_back))[None]
        loss_now = float(cross_entropy(logits, torch.from_numpy(log.feedback[held_back])[None], plain))
        if loss_now < best_loss:
            best, best_loss = copy.deepcopy(model), loss_now
    return best


def predict_factorisation(model: FactorisationMachine, inputs: Inputs, rows: IntArray) -> FloatArray:
    """Logits of rows, shape (R, F)."""
    with torch.inference_mode():
        parts = [model(*inputs(rows[at : at + 8_192])).numpy() for at in range(0, len(rows), 8_192)]
    return np.concatenate(parts)
