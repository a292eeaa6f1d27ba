"""How the embedded planner model is made, step by step, each step kept so that a stopped training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from rapport.agents.lerl import slate_policy
from rapport.agents.lm.example import Lesson
from rapport.agents.lm.gguf import write_gguf
from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.sft import Teacher, Teaching
from rapport.agents.lm.tokenizer import Tokenizer, learn_tokenizer
from rapport.agents.planning.lm.examples import SPELLING, Curriculum, lesson_texts
from rapport.agents.planning.lm.simulated_examples import LivedLessons
from rapport.agents.planning.prompts import VARIABLES, load_prompt
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.training import Training, first_agent
from rapport.experiments.results.store import config_hash, write_atomically

Progress = Callable[[str, float], None]
"""Told what is being done and the share of it that is done, in [0, 1]."""

FRACTIONS = [f" {clicks}/{shown}" for shown in range(1, 7) for clicks in range(shown + 1)]
NUMBERS = [f" {number}" for number in range(100)]
"""What prompts hold most of: one piece of the vocabulary each."""
_PROMPTS_COUNT = 400
"""Times the fixed wording of the prompts counts when the vocabulary is learned."""
_VALIDATION = 4
"""Lived lessons of each kind that are not taught but asked for."""
_KEEP_EVERY = 100
"""Steps between two states that are kept."""


@dataclass(frozen=True)
class Shape:
    """Of the model."""

    vocabulary: int = 1_400
    """Pieces learned from the lessons."""
    d_model: int = 96
    """Numbers in a hidden state."""
    n_layers: int = 4
    """Layers."""
    n_heads: int = 3
    """Heads of attention in each."""
    d_ff: int = 256
    """Numbers between the two halves of a feed-forward part."""


@dataclass(frozen=True)
class School:
    """The making of one model.

    Attributes:
        setup: data and environment of the lived lessons.
        folder: keeps every step's outcome.
        rounds: times that `batch` training users' sessions are played for lived lessons.
        batch: sessions in a round.
        seed: of everything.
        shape: of the model.
        teaching: how it is taught.
    """

    setup: Setup
    folder: Path
    rounds: int
    batch: int = 256
    seed: int = 0
    shape: Shape = field(default_factory=Shape)
    teaching: Teaching = field(default_factory=Teaching)

    def lived(self, progress: Progress) -> list[Lesson]:
        """Lessons from simulated sessions of training users; made once."""
        known = [self.setup.identity(), self.rounds, self.batch, self.seed, _wording()]
        path = self.folder / f"lessons-{config_hash({'lessons': known})}.json"
        if path.exists():
            return [Lesson(**lesson) for lesson in json.loads(path.read_text("utf-8"))]
        agent = first_agent(
            Training(self.setup, "first", self.seed, 0, str(self.folder), PlannerChoice("none")),
            lambda share: progress("first policy", share),
        )
        sessions = self.setup.sessions(self.batch, "train")
        maker = LivedLessons(
            sessions, self.setup.session_data(), slate_policy(agent), np.random.default_rng([self.seed, 5])
        )
        lessons = list(maker.rounds(self.rounds, lambda done, total: progress("living lessons", done / total)))
        write_atomically(path, json.dumps([asdict(lesson) for lesson in lessons], ensure_ascii=False))
        return lessons

    def vocabulary(self, lived: list[Lesson]) -> Tokenizer:
        """Learned from lived and invented lessons."""
        invented = Curriculum([], self.seed + 1)
        texts = lesson_texts(
            [*lived[:120], *(lesson for step in range(SPELLING, SPELLING + 60) for lesson in invented(4 * step))]
        )
        fixed = [load_prompt(name).text for name in VARIABLES] * _PROMPTS_COUNT
        return learn_tokenizer(texts + fixed, self.shape.vocabulary, FRACTIONS + NUMBERS)

    def taught(self, lived: list[Lesson], tokenizer: Tokenizer, progress: Progress) -> Llama:
        """The model after all its lessons; goes on from the last state that was kept."""
        shape = self.shape
        config = LlamaConfig(tokenizer.n_vocab, shape.d_model, shape.n_layers, shape.n_heads, shape.d_ff)
        model = Llama(config, torch.Generator().manual_seed(self.seed))
        taught = [lesson for kind in (True, False) for lesson in _of_kind(lived, kind)[_VALIDATION:]]
        teacher = Teacher(model, tokenizer, Curriculum(taught, self.seed), self.teaching)
        known = [asdict(shape), asdict(self.teaching), self.seed, [len(lived), lived[0].start]]
        path = self.folder / f"state-{config_hash({'teaching': known})}.pt"
        if path.exists():
            teacher.resume(path)

        def report(step: int, loss: float) -> None:
            progress(f"teaching, loss {loss:.2f}", step / self.teaching.steps)
            if step % _KEEP_EVERY == 0 or step == self.teaching.steps:
                teacher.save(path)

        teacher.teach(report)
        return model

    def graduate(self, progress: Progress) -> Path:
        """All steps, to the GGUF file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lived = self.lived(progress)
        tokenizer = self.vocabulary(lived)
        model = self.taught(lived, tokenizer, progress)
        about: dict[str, str | int | float | bool] = {
            "rapport.seed": self.seed,
            "rapport.steps": self.teaching.steps,
            "rapport.prompts": _wording(),
        }
        return write_gguf(self.folder / "planner.gguf", model, tokenizer, name="Rapport planner", metadata=about)


def _of_kind(lessons: list[Lesson], plan: bool) -> list[Lesson]:
    return [lesson for lesson in lessons if lesson.is_plan == plan]


def _wording() -> str:
    """Changes with the wording of the prompts, which a model is taught to read."""
    return "-".join(load_prompt(name).version for name in sorted(VARIABLES))
