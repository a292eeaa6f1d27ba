"""Builds the embedded planner model from scratch: examples, tokenizer, weights, GGUF file. Each step can resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from rapport.agents.lerl import slate_policy
from rapport.agents.lm.example import Example
from rapport.agents.lm.gguf import write_gguf
from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.sft import SFTConfig, SFTTrainer
from rapport.agents.lm.tokenizer import Tokenizer, learn_tokenizer
from rapport.agents.planning.lm.curriculum import COPYING_STEPS, Curriculum, example_texts
from rapport.agents.planning.lm.examples import is_plan
from rapport.agents.planning.lm.simulated_examples import SimulatedExamples
from rapport.agents.planning.prompts import NAMES, load_prompt
from rapport.experiments.core import EnvConfig
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.environments import checkpoint_note, data_of, sessions_of
from rapport.experiments.lerl.training import Training, pretrained_agent
from rapport.experiments.results.store import config_hash, write_atomically

Progress = Callable[[str, float], None]
"""Called with the current step and the share of it that is done, in [0, 1]."""

FRACTIONS = [f" {clicks}/{shown}" for shown in range(1, 7) for clicks in range(shown + 1)]
NUMBERS = [f" {number}" for number in range(100)]
"""The most frequent texts of prompts: one piece of the vocabulary each."""
_PROMPTS_COUNT = 400
"""Copies of the fixed wording of the prompts in the tokenizer's corpus."""
_VALIDATION = 4
"""Simulated examples of each kind that are held out."""
_KEEP_EVERY = 100
"""Steps between two checkpoints."""


@dataclass(frozen=True)
class ModelConfig:
    """Size of the model."""

    vocabulary: int = 1_400
    """Pieces learned from the examples."""
    d_model: int = 96
    """Width of the hidden states."""
    n_layers: int = 4
    """Layers."""
    n_heads: int = 3
    """Attention heads of a layer."""
    d_ff: int = 256
    """Width of the feed-forward networks."""


@dataclass(frozen=True)
class PlannerBuild:
    """How one planner model is built.

    Attributes:
        env: data and environment of the simulated examples.
        folder: holds the result of every step.
        rounds: times that `batch` training users' sessions are simulated.
        batch: sessions in a round.
        seed: random seed of all steps.
        model: size of the model.
        training: hyper-parameters of the training.
    """

    env: EnvConfig
    folder: Path
    rounds: int
    batch: int = 256
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    training: SFTConfig = field(default_factory=SFTConfig)

    def run(self, progress: Progress) -> Path:
        """Take all steps that are not done; returns the path of the GGUF file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        simulated = self.simulated_examples(progress)
        tokenizer = self.tokenizer(simulated)
        model = self.train(simulated, tokenizer, progress)
        metadata: dict[str, str | int | float | bool] = {
            "rapport.seed": self.seed,
            "rapport.steps": self.training.steps,
            "rapport.prompts": _wording(),
        }
        return write_gguf(self.folder / "planner.gguf", model, tokenizer, name="Rapport planner", metadata=metadata)

    def simulated_examples(self, progress: Progress) -> list[Example]:
        """Examples from simulated sessions of training users, read from the folder where they exist."""
        known = [checkpoint_note(self.env), self.rounds, self.batch, self.seed, _wording()]
        path = self.folder / f"lessons-{config_hash({'lessons': known})}.json"
        if path.exists():
            return [Example(e["start"], e["rests"], e["answers"]) for e in json.loads(path.read_text("utf-8"))]
        agent = pretrained_agent(
            Training(self.env, "pretrained", self.seed, 0, self.folder, PlannerConfig("none")),
            lambda share: progress("pretraining the policy", share),
        )
        sessions = sessions_of(self.env, self.batch, "train")
        rng = np.random.default_rng([self.seed, 5])
        simulation = SimulatedExamples(sessions, data_of(self.env), slate_policy(agent), rng)
        examples = list(simulation.rounds(self.rounds, lambda done, total: progress("simulation", done / total)))
        rows = [{"start": e.prefix, "rests": e.suffixes, "answers": e.completions} for e in examples]
        write_atomically(path, json.dumps(rows, ensure_ascii=False))
        return examples

    def tokenizer(self, simulated: list[Example]) -> Tokenizer:
        """Vocabulary learned from simulated and synthetic examples."""
        curriculum = Curriculum([], self.seed + 1)
        synthetic = [e for step in range(COPYING_STEPS, COPYING_STEPS + 60) for e in curriculum(4 * step)]
        texts = example_texts([*simulated[:120], *synthetic])
        fixed = [load_prompt(name).text for name in NAMES] * _PROMPTS_COUNT
        return learn_tokenizer(texts + fixed, self.model.vocabulary, FRACTIONS + NUMBERS)

    def train(self, simulated: list[Example], tokenizer: Tokenizer, progress: Progress) -> Llama:
        """The trained model; training resumes from the last checkpoint."""
        size = self.model
        config = LlamaConfig(tokenizer.n_vocab, size.d_model, size.n_layers, size.n_heads, size.d_ff)
        model = Llama(config, torch.Generator().manual_seed(self.seed))
        kinds = ([e for e in simulated if is_plan(e) == kind] for kind in (True, False))
        curriculum = Curriculum([e for kind in kinds for e in kind[_VALIDATION:]], self.seed)
        trainer = SFTTrainer(model, tokenizer, curriculum, self.training)
        known = [asdict(size), asdict(self.training), self.seed, [len(simulated), simulated[0].prefix]]
        path = self.folder / f"state-{config_hash({'teaching': known})}.pt"
        if path.exists():
            trainer.resume(path)

        def report(step: int, loss: float) -> None:
            progress(f"training, loss {loss:.2f}", step / self.training.steps)
            if step % _KEEP_EVERY == 0 or step == self.training.steps:
                trainer.save(path)

        trainer.train(report)
        return model


def _wording() -> str:
    """Versions of the prompts' wording, which the model is trained to read."""
    return "-".join(load_prompt(name).version for name in sorted(NAMES))
