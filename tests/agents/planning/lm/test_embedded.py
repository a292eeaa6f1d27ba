"""The model that comes with the package: small, of the present wording of the prompts, and better than chance."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from rapport.agents.llm import Sampling, complete_json, open_llm
from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.planning.critic import REFLECTION_SCHEMA
from rapport.agents.planning.llm_planner import plan_schema
from rapport.agents.planning.lm.embedded import EMBEDDED, PACKAGED, embedded_model
from rapport.agents.planning.lm.examples import prompt_planner
from rapport.agents.planning.lm.synthetic_examples import (
    SyntheticService,
    synthetic_plans,
    synthetic_reflections,
    top_categories,
)
from rapport.agents.planning.prompts import NAMES, load_prompt


@pytest.fixture(scope="module")
def llm() -> LlamaCppLLM:
    model = open_llm(EMBEDDED, packaged=PACKAGED, sampling=Sampling(temperature=0))
    assert isinstance(model, LlamaCppLLM)
    return model


def test_it_is_small_and_was_trained_on_the_prompts_as_they_are_now(llm: LlamaCppLLM) -> None:
    assert embedded_model().stat().st_size < 8e6
    card = embedded_model().with_name("CARD.md").read_text("utf-8")
    assert f"{embedded_model().stat().st_size / 1e6:.2f} MB" in card
    wording = "-".join(load_prompt(name).version for name in sorted(NAMES))
    assert llm._llama.metadata["rapport.prompts"] == wording, "train the embedded model anew: `rapport lm train`"


def test_it_plans_well_under_names_it_never_saw(llm: LlamaCppLLM) -> None:
    """Far nearer to what all that is known says than plans of as many categories at random."""
    rng = np.random.default_rng(2_001)
    model, chance = [], []
    for _ in range(6):
        service = SyntheticService(rng, largest=30)
        views = service.views(service.users(5))
        planner = prompt_planner(service.names, service.rates)
        schema = plan_schema(service.names, min(2, len(service.names)), min(8, len(service.names)))
        answers = complete_json(llm, planner.prompts_with(views, []), schema, planner.parse)
        wanted = set(top_categories(service.rates))
        for answer in answers:
            assert answer is not None
            model.append(len(wanted & set(answer)) / len(wanted | set(answer)))
            drawn = set(rng.permutation(len(service.names))[: len(answer)].tolist())
            chance.append(len(wanted & drawn) / len(wanted | drawn))
    assert np.mean(model) > np.mean(chance) + 0.2


def test_its_reflections_name_categories_of_the_session(llm: LlamaCppLLM) -> None:
    example = synthetic_reflections(np.random.default_rng(7), 6)
    answers = llm.complete(example.prompts(), REFLECTION_SCHEMA, 300)
    texts = [json.loads(answer.text)["reflection"] for answer in answers if answer.error is None]
    assert len(texts) == 6
    assert sum(text.startswith(("Show ", "No category")) for text in texts) >= 4


def test_equal_prompts_get_equal_plans_and_other_users_others() -> None:
    model = open_llm(EMBEDDED, packaged=PACKAGED, sampling=Sampling(seed=3))
    different = 0
    for seed in range(4):
        example = synthetic_plans(np.random.default_rng(seed), 6)
        prompts = example.prompts()
        first, again = ([answer.text for answer in model.complete(prompts, None, 96)] for _ in range(2))
        assert first == again
        different += len(set(first)) - 1
    assert different > 3
