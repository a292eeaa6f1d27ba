"""Generation by the torch model: completions of many prompts with a common prefix, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapport.agents.lm.model import Llama, Prefix
from rapport.agents.lm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Generation:
    """Completions of B prompts.

    Attributes:
        tokens: B lists of tokens, each with the end-of-text token where it was reached.
        texts: B texts.
    """

    tokens: list[list[int]]
    texts: list[str]


@torch.no_grad()
def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prefix: Prefix,
    suffixes: Sequence[str],
    *,
    temperature: float,
    generator: torch.Generator,
    max_tokens: int = 96,
) -> Generation:
    """Sample a completion of each prompt until the end of the text.

    Args:
        model: the model.
        tokenizer: its vocabulary.
        prefix: what all prompts begin with, as :meth:`~rapport.agents.lm.model.Llama.read_prefix` returns it.
        suffixes: B texts, the rest of each prompt.
        temperature: divides the logits; 0 takes the likeliest token.
        generator: source of randomness.
        max_tokens: longest completion.
    """
    encoded = [tokenizer.encode(suffix) for suffix in suffixes]
    lengths = torch.tensor([len(tokens) for tokens in encoded])
    tokens = torch.zeros(len(encoded), int(lengths.max()), dtype=torch.long)
    for row, own in enumerate(encoded):
        tokens[row, : len(own)] = torch.tensor(own)
    logits, cache = model.prefill(tokens, lengths, max_tokens, prefix)
    generated: list[list[int]] = [[] for _ in encoded]
    running = torch.ones(len(encoded), dtype=torch.bool)
    for _ in range(max_tokens):
        sampled = _sample(logits, temperature, generator)
        for row in running.nonzero()[:, 0].tolist():
            generated[row].append(int(sampled[row]))
        running &= sampled != tokenizer.eos
        if not running.any():
            break
        logits = model.decode_step(sampled, cache)
    return Generation(generated, [tokenizer.decode(t for t in own if t != tokenizer.eos) for own in generated])


def _sample(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=1)
    probabilities = (logits / temperature).softmax(dim=1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
