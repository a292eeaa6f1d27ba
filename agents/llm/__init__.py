"""Language models behind one interface: batches of prompts in, completions out, and a meter of their cost.

>>> from rapport.agents.llm import open_llm
>>> llm = open_llm("model.gguf")  # doctest: +SKIP
>>> llm.complete(["Hello"], system="Be brief.", n=2, logprobs=True)  # doctest: +SKIP
"""

from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import LLM, Budget, Completion, Meter, Sampling, Schema
from rapport.agents.llm.cache import CachedLLM
from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.llm.load import open_llm
from rapport.agents.llm.memory import ScoredMemory, ScoredText
from rapport.agents.llm.openai_api import OpenAILLM
from rapport.agents.llm.prompts import Prompt
from rapport.agents.llm.scripted import ScriptedLLM
from rapport.agents.llm.structured import complete_json
from rapport.agents.llm.transcript import RecordedLLM, ReplayLLM, conversation

__all__ = [
    "LLM",
    "Backend",
    "Budget",
    "CachedLLM",
    "Completion",
    "LlamaCppLLM",
    "Meter",
    "OpenAILLM",
    "Prompt",
    "RecordedLLM",
    "ReplayLLM",
    "Sampling",
    "Schema",
    "ScoredMemory",
    "ScoredText",
    "ScriptedLLM",
    "complete_json",
    "conversation",
    "open_llm",
]
