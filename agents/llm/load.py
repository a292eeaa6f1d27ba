"""Opens any model by a name: a GGUF file, the address of a server, or the transcript of an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path

from rapport.agents.llm.address import is_address
from rapport.agents.llm.base.interface import LLM, Budget, Sampling
from rapport.agents.llm.cache import CachedLLM
from rapport.agents.llm.gguf.hub import FORMS, PREFIX, fetch
from rapport.agents.llm.gguf.packages import MODELS
from rapport.agents.llm.transcript import ReplayLLM

REPLAY = "replay:"
"""Prefix of the name of a transcript to replay."""


def open_llm(
    source: str | PathLike[str],
    *,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    cache: str | PathLike[str] | None = None,
    timeout: float | None = None,
    parallel: int | None = None,
    n_ctx: int = 4096,
    n_threads: int | None = None,
    n_gpu_layers: int = 0,
    packaged: Mapping[str, Callable[[], Path]] | None = None,
) -> LLM:
    """Open a language model.

    Args:
        source: one of

            - ``"path/model.gguf"``, a file that llama.cpp runs in this process;
            - ``"smollm2"``, SmolLM2-135M-Instruct of the extra ``rapport-gym[smollm2]``, or a name in ``packaged``;
            - ``"hf:owner/repository/model.gguf"`` or ``"hf:owner/repository:*q4_0.gguf"``, a GGUF file on the Hugging
              Face Hub (:mod:`rapport.agents.llm.gguf.hub`);
            - ``"http://host:port/v1#model"``, a server with OpenAI's chat API (llama-server, vLLM, Ollama, hosted
              models); without ``#model`` the first model that it lists;
            - ``"replay:FILE"``, a transcript (:mod:`rapport.agents.llm.transcript`), with its recorded sampling
              settings, costs and limits.
        sampling: sampling settings.
        budget: limits on what the model may cost; beyond them prompts get a completion with an error.
        cache: file of cached answers; None for no cache.
        timeout: seconds that one answer may take; if None, 120 for a server, and no limit for a GGUF file, so that
            answers do not depend on the machine's load.
        parallel: prompts that run at a time; if None, 8, or 2 for a GGUF file of at most 64 MiB. Late answers halve it.
        n_ctx: tokens of all running prompts and answers together (GGUF files only).
        n_threads: processor threads (GGUF files only); if None, ``OMP_NUM_THREADS`` where it is set, else 1.
        n_gpu_layers: layers on the GPU, -1 for all (GGUF files only, with llama-cpp-python built for one).
        packaged: GGUF files of a package by name: :data:`rapport.agents.planning.lm.embedded.PACKAGED` has Rapport's
            planner model, ``"embedded"``.

    Raises:
        ValueError: the source is none of these, or the file is no usable model or transcript.
        FileNotFoundError: there is no such file.
        ConnectionError: the server or the Hub does not answer.
        ImportError: the extra ``rapport-gym[llm]``, or the model's own, is not installed.
    """
    name, packaged = fspath(source), {**MODELS, **(packaged or {})}
    llm: LLM
    if name.startswith(REPLAY):
        return ReplayLLM(name.removeprefix(REPLAY))
    if is_address(name):
        from rapport.agents.llm.openai_api import PARALLEL, TIMEOUT, OpenAILLM

        seconds = TIMEOUT if timeout is None else timeout
        at_a_time = PARALLEL if parallel is None else parallel
        llm = OpenAILLM.connect(name, sampling=sampling, budget=budget, timeout=seconds, parallel=at_a_time)
    elif name in packaged or name.startswith(PREFIX) or name.lower().endswith(".gguf"):
        from rapport.agents.llm.gguf.backend import LlamaCppLLM

        file = packaged[name]() if name in packaged else fetch(name) if name.startswith(PREFIX) else name
        llm = LlamaCppLLM(
            file,
            sampling=sampling,
            budget=budget,
            deadline=timeout,
            n_ctx=n_ctx,
            n_threads=n_threads,
            n_gpu_layers=n_gpu_layers,
            parallel=parallel,
        )
    else:
        raise ValueError(
            f"cannot tell what language model {name!r} is: give {', '.join([*packaged, ''])}"
            f"a file that ends in .gguf, {FORMS}, or the address of an OpenAI-compatible server such as "
            "http://localhost:8080/v1#model"
        )
    return llm if cache is None else CachedLLM(llm, cache)
