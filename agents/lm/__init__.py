"""A small language model, trained in torch and run by llama.cpp.

Names are imported when they are first used, because they need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapport.agents.lm.example import Example as Example
    from rapport.agents.lm.generate import Generation as Generation
    from rapport.agents.lm.gguf import read_gguf as read_gguf
    from rapport.agents.lm.gguf import write_gguf as write_gguf
    from rapport.agents.lm.model import Llama as Llama
    from rapport.agents.lm.model import LlamaConfig as LlamaConfig
    from rapport.agents.lm.sft import SFTConfig as SFTConfig
    from rapport.agents.lm.sft import SFTTrainer as SFTTrainer
    from rapport.agents.lm.tokenizer import Tokenizer as Tokenizer
    from rapport.agents.lm.tokenizer import learn_tokenizer as learn_tokenizer

_MODULES = {
    "Example": "example",
    "Generation": "generate",
    "Llama": "model",
    "LlamaConfig": "model",
    "SFTConfig": "sft",
    "SFTTrainer": "sft",
    "Tokenizer": "tokenizer",
    "learn_tokenizer": "tokenizer",
    "read_gguf": "gguf",
    "write_gguf": "gguf",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
