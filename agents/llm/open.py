"""One name for any model: a GGUF file or the address of a server."""

from __future__ import annotations

from os import PathLike, fspath
from urllib.parse import urlsplit

from rapport.agents.llm.base import LLM, Budget, Sampling
from rapport.agents.llm.cache import CachedLLM


def open_llm(
    source: str | PathLike[str],
    *,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    cache: str | PathLike[str] | None = None,
    timeout: float = 60.0,
    n_ctx: int = 4096,
    n_threads: int | None = None,
) -> LLM:
    """Open a language model.

    Args:
        source: ``"path/model.gguf"``, run in this process by llama.cpp, or ``"http://host:port/v1#model"``, any server
            that speaks OpenAI's protocol (llama-server, vLLM, Ollama, hosted ones); without ``#model`` the first model
            that the server lists. A server is asked at once whether it is there.
        sampling: how tokens are drawn.
        budget: what the model may cost; beyond it prompts are answered with an error.
        cache: file in which answers are kept for the next time; None for no cache.
        timeout: seconds one answer may take.
        n_ctx: longest prompt and answer together, in tokens (GGUF files only).
        n_threads: processor threads (GGUF files only); chosen by the model's size where None.

    Raises:
        ValueError: the source is neither, or the file is no usable model.
        FileNotFoundError: there is no such file.
        ConnectionError: the server does not answer.
        ImportError: the extra ``rapport-gym[llm]`` is not installed.
    """
    name = fspath(source)
    llm: LLM
    if urlsplit(name).scheme in ("http", "https"):
        from rapport.agents.llm.openai_api import OpenAILLM

        llm = OpenAILLM.connect(name, sampling=sampling, budget=budget, timeout=timeout)
    elif name.lower().endswith(".gguf"):
        from rapport.agents.llm.llama_cpp import LlamaCppLLM

        llm = LlamaCppLLM(name, sampling=sampling, budget=budget, deadline=timeout, n_ctx=n_ctx, n_threads=n_threads)
    else:
        raise ValueError(
            f"cannot tell what language model {name!r} is: give a file that ends in .gguf, or the address of an "
            "OpenAI-compatible server such as http://localhost:8080/v1#model"
        )
    return llm if cache is None else CachedLLM(llm, cache)
