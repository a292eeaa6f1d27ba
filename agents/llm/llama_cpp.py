"""A GGUF file run in this process by llama.cpp."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rapport.agents.llm.backend import Backend
from rapport.agents.llm.base import Budget, Completion, Sampling, Schema, printable
from rapport.agents.llm.gguf_grammar import check_grammar, decode, schema_to_gbnf

if TYPE_CHECKING:
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import ChatFormatter
    from llama_cpp.llama_grammar import LlamaGrammar

logger = logging.getLogger(__name__)

_CHUNK = 64
"""Prompt tokens read between two looks at the clock."""

_SMALL_MODEL = 64 * 2**20
"""Bytes up to which one thread is best: more would spend their time waiting for one another."""

_WHOLE_FILE = 64 * 2**20
_END = 8 * 2**20


class LlamaCppLLM(Backend):
    """One model in one context: prompts are answered one after the other, and share what they have in common.

    llama.cpp keeps what it has read, so a prompt that begins like the one before costs only its new part; a batch is
    answered in sorted order to make the most of it. Reusing a prefix changes how llama.cpp batches its arithmetic, and
    that may change the last bits of a logit: where two runs must agree to the bit whatever was asked before, switch it
    off.

    The model's own chat template is used where the file has one.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        deadline: float = 60.0,
        n_ctx: int = 4096,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        reuse_prefix: bool = True,
    ) -> None:
        """Load the model.

        Args:
            path: a GGUF file.
            sampling: how tokens are drawn.
            budget: what the model may cost.
            deadline: seconds one answer may take. The clock is read after each token, and every 64 tokens of a prompt.
            n_ctx: longest prompt and answer together, in tokens; never more than the model was trained for.
            n_threads: processor threads; where None one for a model up to 64 MiB, else as llama.cpp decides.
            n_gpu_layers: layers kept on the GPU, -1 for all, where llama-cpp-python was built for one.
            reuse_prefix: keep what consecutive prompts have in common.

        Raises:
            ImportError: llama-cpp-python is not installed.
            FileNotFoundError: there is no such file.
            ValueError: the file is no model that llama.cpp can run.
        """
        if not deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds; got {deadline}")
        file = Path(fspath(path))
        self._llama = _load(file, n_ctx, n_threads, n_gpu_layers)
        super().__init__(f"gguf:{file_fingerprint(file)}", sampling, budget)
        self._deadline = deadline
        self._limit = min(n_ctx, _trained_context(self._llama) or n_ctx)
        self._reuse_prefix = reuse_prefix
        self._template = _chat_template(self._llama)
        self._grammars: dict[str, LlamaGrammar | str] = {}
        self._lock = threading.Lock()
        self._check_logits(file)

    def close(self) -> None:
        """Free the model's memory; it cannot be used afterwards."""
        with self._lock:
            self._llama.close()

    def _answer(
        self, prompts: Sequence[str], schema: Schema | None, max_tokens: int, until: float | None
    ) -> list[Completion]:
        with self._lock:
            grammar = None if schema is None else self._grammar(schema)
            if isinstance(grammar, str):
                return [Completion("", error=grammar)] * len(prompts)
            answers: dict[int, Completion] = {}
            for index in sorted(range(len(prompts)), key=prompts.__getitem__):
                answers[index] = self._one(prompts[index], grammar, max_tokens, until)
            return [answers[index] for index in range(len(prompts))]

    def _grammar(self, schema: Schema) -> LlamaGrammar | str:
        """The grammar of a schema, or why there is none."""
        from llama_cpp.llama_grammar import LlamaGrammar

        key = json.dumps(schema, sort_keys=True)
        if key not in self._grammars:
            try:
                grammar = schema_to_gbnf(schema)
                check_grammar(self._llama, grammar, schema)
                self._grammars[key] = LlamaGrammar.from_string(grammar, verbose=False)
            except ValueError as error:
                self._grammars[key] = str(error)
        return self._grammars[key]

    def _one(self, prompt: str, grammar: LlamaGrammar | None, max_tokens: int, until: float | None) -> Completion:
        tokens = self._tokenize(prompt)
        room = self._limit - len(tokens)
        if room < 1:
            return Completion(
                "",
                error=f"the prompt is {len(tokens)} tokens long, the context holds {self._limit}: shorten the prompt, "
                "or give a larger n_ctx where the model allows it",
            )
        deadline = time.monotonic() + self._deadline
        if until is not None:
            deadline = min(deadline, until)
        try:
            written, error = self._generate(tokens, grammar, min(max_tokens, room), deadline)
        except RuntimeError as failure:  # llama_decode's own errors, such as no memory left
            self._llama.n_tokens = 0  # what it has read can no longer be trusted
            return Completion("", len(tokens), error=f"llama.cpp failed: {failure}")
        text = decode(self._llama.detokenize([self._llama.token_bos(), *written]))
        return Completion(printable(text), len(tokens), len(written), error=error)

    def _generate(
        self, tokens: list[int], grammar: LlamaGrammar | None, max_tokens: int, deadline: float
    ) -> tuple[list[int], str | None]:
        """Tokens written, and why they are not an answer (None where they are)."""
        import llama_cpp

        late = f"no complete answer within {self._deadline:g} s"
        if not self._read(tokens, deadline):
            return [], late
        written: list[int] = []
        vocab = llama_cpp.llama_model_get_vocab(self._llama.model)
        self._llama.set_seed(self.sampling.seed)
        for token in self._llama.generate(
            tokens,
            temp=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=0,
            min_p=0.0,
            grammar=grammar,
        ):
            if llama_cpp.llama_vocab_is_eog(vocab, token):
                return written, None
            written.append(token)
            if len(written) >= max_tokens:
                break
            if time.monotonic() > deadline:
                return written, late
        # Free text may stop anywhere; JSON that was cut off is of no use.
        return written, None if grammar is None else f"the answer was cut off after {len(written)} tokens"

    def _read(self, tokens: list[int], deadline: float) -> bool:
        """Read all but a prompt's last token, from where it differs from the last prompt; False where time ran out."""
        import llama_cpp

        llama = self._llama
        known = llama.input_ids[: llama.n_tokens] if self._reuse_prefix else llama.input_ids[:0]
        shared = min(len(known), len(tokens) - 1)
        differs = np.flatnonzero(known[:shared] != np.asarray(tokens[:shared], dtype=known.dtype))
        start = int(differs[0]) if len(differs) else shared
        memory = llama_cpp.llama_get_memory(llama.ctx)
        if memory is not None and not llama_cpp.llama_memory_seq_rm(memory, -1, start, -1):
            # Recurrent and sliding-window models cannot forget a part.
            llama_cpp.llama_memory_clear(memory, True)
            start = 0
        llama.n_tokens = start
        for position in range(start, len(tokens) - 1, _CHUNK):
            if time.monotonic() > deadline:
                return False
            llama.eval(tokens[position : min(position + _CHUNK, len(tokens) - 1)])
        return time.monotonic() <= deadline

    def _tokenize(self, prompt: str) -> list[int]:
        if self._template is None:
            return self._llama.tokenize(printable(prompt).encode(), add_bos=True, special=False)
        text = self._template(messages=[{"role": "user", "content": printable(prompt)}]).prompt
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def _check_logits(self, file: Path) -> None:
        """Refuse weights that give no numbers: sampling from such logits would end the process."""
        import llama_cpp

        self._llama.eval(self._llama.tokenize(b"a", add_bos=True))
        logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        finite = np.isfinite(np.ctypeslib.as_array(logits, shape=(self._llama.n_vocab(),))).all()
        self._llama.n_tokens = 0
        if not finite:
            raise ValueError(f"the model {file} computes values that are no numbers: its weights are damaged")


def file_fingerprint(path: Path) -> str:
    """Names a file's content: the SHA-256 of all of it up to 64 MiB, beyond that of its size, first and last 8 MiB.

    A model's metadata and vocabulary are at the beginning of a GGUF file, its last layers' weights at the end, so two
    large models differ in what is read even where they are variants of one another.
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


def _load(path: Path, n_ctx: int, n_threads: int | None, n_gpu_layers: int) -> Llama:
    try:
        import llama_cpp
    except ImportError as error:
        raise ImportError(
            'running a GGUF file needs llama-cpp-python: pip install "rapport-gym[llm]" (or give the address of an '
            "OpenAI-compatible server instead)"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}: give the path of a GGUF file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path} is no GGUF file: it begins with {magic!r}, not b'GGUF'. Was the download complete?")
    if n_threads is None and path.stat().st_size <= _SMALL_MODEL:
        n_threads = 1
    try:
        return llama_cpp.Llama(
            str(path),
            n_ctx=n_ctx,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            n_gpu_layers=n_gpu_layers,
            verbose=False,
        )
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: it is incomplete or damaged, needs a newer "
            f"llama-cpp-python than {llama_cpp.__version__}, or more memory than there is with n_ctx={n_ctx}"
        ) from error


def _trained_context(llama: Llama) -> int | None:
    length = llama.metadata.get(f"{llama.metadata.get('general.architecture')}.context_length")
    return int(length) if length else None


def _chat_template(llama: Llama) -> ChatFormatter | None:
    """The chat template in the file's metadata; None for a plain model."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = llama.metadata.get("tokenizer.chat_template")
    if not template:
        return None

    def special(token: int) -> str:
        return llama.detokenize([token], special=True).decode("utf-8", "replace") if token >= 0 else ""

    return Jinja2ChatFormatter(
        template=template, eos_token=special(llama.token_eos()), bos_token=special(llama.token_bos())
    )
