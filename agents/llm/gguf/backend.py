"""Backend that runs a GGUF file in this process with llama.cpp."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import (
    Budget,
    Completion,
    CompletionOptions,
    SampleRequest,
    Sampling,
    Schema,
    one_line,
    printable,
    sample_seed,
)
from rapport.agents.llm.gguf.chat import ChatTemplate, TemplateError
from rapport.agents.llm.gguf.context import STEP, SharedContext
from rapport.agents.llm.gguf.grammar import Grammar, decode
from rapport.agents.llm.gguf.header import check_header
from rapport.agents.llm.gguf.scheduler import GenerationParams, Request, Scheduler

if TYPE_CHECKING:
    from llama_cpp import Llama

logger = logging.getLogger(__name__)

_OWN_CONTEXT = 8
"""Tokens of the context that llama-cpp-python creates; it stays unused."""

_VERSION = 2
"""Version of the sampling procedure: cached answers of another version are not valid."""
_SMALL_MODEL = 64 * 2**20
"""Bytes up to which 2 parallel prompts are fastest."""

_LEAST_CONTEXT = 64
_WHOLE_FILE = 64 * 2**20
_END = 8 * 2**20


class LlamaCppLLM(Backend):
    """One model and one context with continuous batching (`scheduler.Scheduler`).

    A prefix that a prompt has in common with a prompt in the context is not decoded again; the common prefix of a batch
    stays in the context for the next one. When the context is full, the scheduler preempts the youngest requests.

    The random stream of a completion depends on the seed and the prompt only, so a completion does not depend on the
    other prompts of the batch, with one exception: batching changes the order of llama.cpp's sums and thereby the last
    bits of a logit, so that rarely another token is sampled. ``alone=True`` rules this out.

    Completions with a schema are sampled from the tokens that its grammar allows (`sampling.sample`). Prompts go
    through the chat template of the file where it has one.

    After a batch in which a time limit ended a request, half as many requests run at a time.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        deadline: float | None = None,
        n_ctx: int = 4096,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        parallel: int | None = None,
        alone: bool = False,
    ) -> None:
        """Load the model.

        Args:
            path: a GGUF file.
            sampling: sampling settings.
            budget: what the model may cost.
            deadline: seconds that a request may take from its start, other requests running beside it; None for no
                limit. A limit makes completions depend on the machine's load. It is checked every 128 tokens of a
                prompt and after each token of the completions.
            n_ctx: tokens of the context, shared by all running prompts and completions, at most the length that the
                model was trained for. One prompt with its completion may fill it.
            n_threads: processor threads, at most the cores that the process may use; if None, ``OMP_NUM_THREADS``
                where it is set, else 1: threads that wait for each other on busy cores are many times slower.
            n_gpu_layers: layers on the GPU, -1 for all, if llama-cpp-python was built for one.
            parallel: running requests, up to 64; if None, 2 for a model up to 64 MiB and 8 above. They share `n_ctx`,
                so the number costs no memory. More are not always faster: a decode step of a large model takes about
                the same time for any number, but attention over the whole context dominates that of a small one.
            alone: decode every prompt from its first token on, one request at a time.

        Raises:
            ImportError: llama-cpp-python is not installed.
            FileNotFoundError: there is no such file.
            ValueError: llama.cpp cannot run the file, its header is damaged, its chat template drops prompts, or a
                limit is out of range.
        """
        if deadline is not None and not deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds; got {deadline}")
        if n_ctx < _LEAST_CONTEXT:
            raise ValueError(f"n_ctx must be at least {_LEAST_CONTEXT} tokens; got {n_ctx}")
        file = Path(fspath(path))
        if parallel is None:
            parallel = 2 if is_small(file) else 8
        if not 1 <= parallel <= STEP // 2:
            raise ValueError(f"parallel must be between 1 and {STEP // 2} prompts; got {parallel}")
        self._llama = _load(file, threads(n_threads), n_gpu_layers)
        super().__init__(f"gguf:{_VERSION}:{file_fingerprint(file)}", sampling, budget)
        self._deadline = math.inf if deadline is None else deadline
        self._limit = min(n_ctx, _trained_context(self._llama) or n_ctx)
        self._parallel, self._alone = 1 if alone else parallel, alone
        self._template = ChatTemplate.of(self._llama, file)
        self._grammars: dict[str, Grammar | str] = {}
        self._lock = threading.Lock()
        self._context = SharedContext(self._llama, self._limit, self._parallel)
        self._check_logits(file)

    def close(self) -> None:
        """Free the memory. The model cannot be used afterwards."""
        with self._lock:
            self._context.close()
            self._llama.close()

    def _complete(
        self, requests: Sequence[SampleRequest], options: CompletionOptions, until: float | None
    ) -> list[Completion]:
        with self._lock:
            grammar = None if options.schema is None else self._grammar(options.schema)
            if isinstance(grammar, str):
                return [Completion("", error=grammar)] * len(requests)
            params = GenerationParams(self.sampling, grammar, self._is_end, self._deadline, until, options.logprobs)
            scheduled = [self._request(request, params, options) for request in requests]
            scheduler = Scheduler(self._context, self._parallel, params, alone=self._alone)
            scheduler.run([request for request in scheduled if request.error is None])
            if self._parallel > 1 and any(request.is_late for request in scheduled):
                self._parallel //= 2
                logger.warning("%s answers too late: %d prompts at a time from now on", self.identity, self._parallel)
            return [self._completion(request) for request in scheduled]

    def _grammar(self, schema: Schema) -> Grammar | str:
        """The grammar of a schema, or the reason why there is none."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._grammars:
            try:
                self._grammars[key] = Grammar.of(self._llama, schema)
            except ValueError as error:
                self._grammars[key] = str(error)
        return self._grammars[key]

    def _request(self, asked: SampleRequest, params: GenerationParams, options: CompletionOptions) -> Request:
        try:
            tokens, error = self._tokenize(asked.prompt, options.system), None
        except TemplateError as failure:
            tokens, error = [], str(failure)
        room = self._limit - len(tokens)
        digest = hashlib.sha256(printable(asked.prompt).encode()).digest()
        seed = [sample_seed(self.sampling.seed, asked.number), *digest]
        request = Request(tokens, params, min(options.max_tokens, room), seed)
        request.error = error
        if room < 1:
            request.error = (
                f"the prompt is {len(tokens)} tokens long, the context holds {self._limit}: shorten the prompt, "
                "or give a larger n_ctx where the model allows it"
            )
        return request

    def _is_end(self, token: int) -> bool:
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(self._llama.model), token))

    def _completion(self, request: Request) -> Completion:
        text = decode(self._llama.detokenize([self._llama.token_bos(), *request.generated]))
        read = len(request.prompt) if request.started else 0
        logprobs = None if request.logprobs is None else tuple(request.logprobs)
        return Completion(
            printable(text), read, len(request.generated), error=request.error, sent=request.sent, logprobs=logprobs
        )

    def _tokenize(self, prompt: str, system: str | None = None) -> list[int]:
        if self._template is None:
            if system is not None:
                raise ValueError(
                    f"system={system[:40]!r}: the model has no chat template for a system message; write it into "
                    "the prompts"
                )
            return self._llama.tokenize(printable(prompt).encode(), add_bos=True, special=False)
        text = self._template.render(prompt, system)
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def _check_logits(self, file: Path) -> None:
        """Refuse weights with logits that are not finite, which cannot be sampled from."""
        logits = self._context.decode({0: self._llama.tokenize(b"a", add_bos=True)})
        self._context.clear()
        if not np.isfinite(logits).all():
            raise ValueError(
                f"the logits of the model {file} are not finite: its weights are damaged; download the file again"
            )


def file_fingerprint(path: Path) -> str:
    """Identifies a file's content: SHA-256 of the size and the file, or above 64 MiB of its first and last 8 MiB.

    A GGUF file has the metadata and vocabulary at its start and the last layers' weights at its end, so the hashes of
    two variants of a large model differ.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            digest.update(file.read())
        else:
            digest.update(file.read(_END))
            file.seek(-_END, 2)
            digest.update(file.read(_END))
    return f"{size}:{digest.hexdigest()}"


def is_small(path: Path) -> bool:
    """Whether a model is small enough for several processes to run it on one thread each."""
    return path.is_file() and path.stat().st_size <= _SMALL_MODEL


def threads(wanted: int | None) -> int:
    """Processor threads of one model: those wanted, else OMP_NUM_THREADS, else 1; at most the usable cores.

    Raises:
        ValueError: fewer than one is wanted.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f"n_threads must be at least 1; got {wanted}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    default = int(first) if first.isdecimal() and int(first) else 1
    return min(wanted or default, usable)


def _load(path: Path, n_threads: int, n_gpu_layers: int) -> Llama:
    try:
        import llama_cpp
    except ImportError as error:
        raise ImportError(
            'running a GGUF file needs llama-cpp-python: pip install "rapport-gym[llm]" (or give the address of an '
            "OpenAI-compatible server instead)"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}: give the path of a GGUF file")
    check_header(path)
    import jinja2  # which llama-cpp-python needs

    try:
        return llama_cpp.Llama(
            str(path),
            n_ctx=_OWN_CONTEXT,
            n_batch=_OWN_CONTEXT,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            n_gpu_layers=n_gpu_layers,
            verbose=False,
        )
    except jinja2.TemplateError as error:  # it compiles the file's templates
        raise ValueError(f"{path}: its chat template is no template ({one_line(str(error))[:200]})") from None
    except (ValueError, RuntimeError, AssertionError, MemoryError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: it is incomplete or damaged, needs a newer "
            f"llama-cpp-python than {llama_cpp.__version__}, or more memory than there is"
        ) from error


def _trained_context(llama: Llama) -> int | None:
    length = llama.metadata.get(f"{llama.metadata.get('general.architecture')}.context_length")
    return int(length) if length else None
