"""Opens any model by a name: a GGUF file, the address of a server, or the transcript of an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path

from rapport.agents.llm.address import is_address
from rapport.agents.llm.base.interface import LLM, Budget, Sampling
from rapport.agents.llm.cache import CachedLLM
from rapport.agents.llm.gguf.hub import FORMS, PREFIX, fetch
from rapport.agents.llm.transcript import ReplayLLM

REPLAY = "replay:"
"""Prefix of the name of a transcript to replay."""


def open_llm(
    source: str | PathLike[str],
    *,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    cache: str | PathLike[str] | None = None,
    timeout: float = 60.0,
    n_ctx: int = 4096,
    n_threads: int | None = None,
    packaged: Mapping[str, Callable[[], Path]] | None = None,
) -> LLM:
    """Open a language model.

    Args:
        source: one of

            - ``"path/model.gguf"``, a file that llama.cpp runs in this process;
            - a name in ``packaged``;
            - ``"hf:owner/repository/model.gguf"`` or ``"hf:owner/repository:*q4_0.gguf"``, a GGUF file on the Hugging
              Face Hub (:mod:`rapport.agents.llm.gguf.hub`);
            - ``"http://host:port/v1#model"``, a server with OpenAI's chat API (llama-server, vLLM, Ollama, hosted
              models); without ``#model`` the first model that it lists;
            - ``"replay:FILE"``, a transcript (:mod:`rapport.agents.llm.transcript`), with its recorded sampling
              settings, costs and limits.
        sampling: sampling settings.
        budget: limits on what the model may cost; beyond them prompts get a completion with an error.
        cache: file of cached answers; None for no cache.
        timeout: seconds that one answer may take.
        n_ctx: tokens of all running prompts and answers together (GGUF files only).
        n_threads: processor threads (GGUF files only); the model's size decides if None.
        packaged: GGUF files of a package by name: :data:`rapport.agents.planning.lm.embedded.PACKAGED` has Rapport's
            planner model, ``"embedded"``.

    Raises:
        ValueError: the source is none of these, or the file is no usable model or transcript.
        FileNotFoundError: there is no such file.
        ConnectionError: the server or the Hub does not answer.
        ImportError: the extra ``rapport-gym[llm]`` is not installed.
    """
    name, packaged = fspath(source), packaged or {}
    llm: LLM
    if name.startswith(REPLAY):
        return ReplayLLM(name.removeprefix(REPLAY))
    if is_address(name):
        from rapport.agents.llm.openai_api import OpenAILLM

        llm = OpenAILLM.connect(name, sampling=sampling, budget=budget, timeout=timeout)
    elif name in packaged or name.startswith(PREFIX) or name.lower().endswith(".gguf"):
        from rapport.agents.llm.gguf.backend import LlamaCppLLM

        file = packaged[name]() if name in packaged else fetch(name) if name.startswith(PREFIX) else name
        llm = LlamaCppLLM(file, sampling=sampling, budget=budget, deadline=timeout, n_ctx=n_ctx, n_threads=n_threads)
    else:
        raise ValueError(
            f"cannot tell what language model {name!r} is: give {', '.join([*packaged, ''])}"
            f"a file that ends in .gguf, {FORMS}, or the address of an OpenAI-compatible server such as "
            "http://localhost:8080/v1#model"
        )
    return llm if cache is None else CachedLLM(llm, cache)
