"""Interface of a language model, its meter and budget, and the base class of backends."""

from rapport._moved import moved
from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import LLM, Budget, Completion, Meter, Sampling, Schema

__all__ = ["LLM", "Backend", "Budget", "Completion", "Meter", "Sampling", "Schema"]

__getattr__ = moved(__name__)
