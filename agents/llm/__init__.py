"""Language models behind one small interface: many prompts in, one answer each, and a meter that says what it cost."""

from rapport.agents.llm.base.interface import LLM, Budget, Completion, Meter, Sampling
from rapport.agents.llm.cache import CachedLLM
from rapport.agents.llm.load import open_llm
from rapport.agents.llm.prompts import Prompt
from rapport.agents.llm.scripted import ScriptedLLM
from rapport.agents.llm.structured import complete_json
from rapport.agents.llm.transcript import RecordedLLM, ReplayLLM, conversation

__all__ = [
    "LLM",
    "Budget",
    "CachedLLM",
    "Completion",
    "Meter",
    "Prompt",
    "RecordedLLM",
    "ReplayLLM",
    "Sampling",
    "ScriptedLLM",
    "complete_json",
    "conversation",
    "open_llm",
]
