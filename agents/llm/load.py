"""One name for any model: a GGUF file, the address of a server, or the transcript of an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import urlsplit

from rapport.agents.llm.base.interface import LLM, Budget, Sampling
from rapport.agents.llm.cache import CachedLLM
from rapport.agents.llm.gguf.hub import FORMS, PREFIX, fetch
from rapport.agents.llm.transcript import ReplayLLM

REPLAY = "replay:"
"""Begins the name of a transcript to be played again."""


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
        source: ``"path/model.gguf"``, run in this process by llama.cpp; a name in ``packaged``;
            ``"hf:owner/repository/model.gguf"`` or ``"hf:owner/repository:*q4_0.gguf"``, the same fetched from the
            Hugging Face Hub (:mod:`rapport.agents.llm.gguf.hub`); ``"http://host:port/v1#model"``, any server that
            speaks OpenAI's protocol (llama-server, vLLM, Ollama, hosted ones), asked at once whether it is there;
            without ``#model`` the first model that it lists; ``"replay:FILE"``, a transcript
            (:mod:`rapport.agents.llm.transcript`), with the sampling, costs and limits recorded there.
        sampling: how tokens are drawn.
        budget: what the model may cost; beyond it prompts are answered with an error.
        cache: file in which answers are kept for the next time; None for no cache.
        timeout: seconds one answer may take.
        n_ctx: tokens of all prompts and answers under way together (GGUF files only).
        n_threads: processor threads (GGUF files only); chosen by the model's size where None.
        packaged: GGUF files that come with a package, by name: :data:`rapport.agents.planning.lm.embedded.PACKAGED`
            has the planner model of Rapport, ``"embedded"``.

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
    if urlsplit(name).scheme in ("http", "https"):
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
