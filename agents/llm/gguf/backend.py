"""A GGUF file run in this process by llama.cpp."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import Budget, Completion, Sampling, Schema, printable
from rapport.agents.llm.gguf.context import STEP, SharedContext
from rapport.agents.llm.gguf.grammar import Grammar, decode
from rapport.agents.llm.gguf.scheduler import Answer, Rules, Turns

if TYPE_CHECKING:
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import ChatFormatter

_OWN_CONTEXT = 8
"""Tokens of the context that llama-cpp-python makes for itself; nothing is read in it."""

_WAY = 2
"""Version of the way tokens are drawn: answers kept from another one are not this model's."""
_SMALL_MODEL = 64 * 2**20
"""Bytes up to which one thread is best (more would wait for one another), and 2 prompts side by side."""

_WHOLE_FILE = 64 * 2**20
_END = 8 * 2**20


class LlamaCppLLM(Backend):
    """One model in one context that answers several prompts side by side (`turns.Turns`).

    What a prompt has in common with one that is in the context, be it another one of the batch or the beginning of the
    batch before, is not read again. Where the context is full, the youngest answers are put back and begun anew later.

    Chance comes from the seed and the prompt alone, so an answer does not depend on what is asked beside it, but for
    one thing: what is computed together changes the order of llama.cpp's sums and with it the last bits of a logit, so
    that once in a while another token is drawn. Where two runs must agree to the bit whatever else is asked, let every
    prompt be read `alone`.

    Answers that must follow a schema are drawn from the tokens that a grammar allows (`drawing.draw`). The model's own
    chat template is used where the file has one.
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
        parallel: int | None = None,
        alone: bool = False,
    ) -> None:
        """Load the model.

        Args:
            path: a GGUF file.
            sampling: how tokens are drawn.
            budget: what the model may cost.
            deadline: seconds one answer may take from when its prompt is begun, beside the others under way. The clock
                is read every 128 tokens of a prompt and after each token of the answers.
            n_ctx: tokens kept in memory, of all prompts and answers under way together, never more than the model was
                trained for. One prompt with its answer may fill it.
            n_threads: processor threads; where None one for a model up to 64 MiB, else as llama-cpp-python decides.
            n_gpu_layers: layers kept on the GPU, -1 for all, where llama-cpp-python was built for one.
            parallel: prompts under way at once, up to 64; where None 2 for a model up to 64 MiB, else 8. They share
                `n_ctx`, so the number costs no memory. More are not always faster: a pass through a large model takes
                much the same time for any number, but each token is compared with all that is in the context, which is
                most of the work of a small one.
            alone: read every prompt from its first token on, with nothing beside it.

        Raises:
            ImportError: llama-cpp-python is not installed.
            FileNotFoundError: there is no such file.
            ValueError: the file is no model that llama.cpp can run, or a limit makes no sense.
        """
        if not deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds; got {deadline}")
        file = Path(fspath(path))
        if parallel is None:
            parallel = 2 if is_small(file) else 8
        if not 1 <= parallel <= STEP // 2:
            raise ValueError(f"parallel must be between 1 and {STEP // 2} prompts; got {parallel}")
        self._llama = _load(file, n_threads, n_gpu_layers)
        super().__init__(f"gguf:{_WAY}:{file_fingerprint(file)}", sampling, budget)
        self._deadline = deadline
        self._limit = min(n_ctx, _trained_context(self._llama) or n_ctx)
        self._parallel, self._alone = 1 if alone else parallel, alone
        self._template = _chat_template(self._llama)
        self._grammars: dict[str, Grammar | str] = {}
        self._lock = threading.Lock()
        self._context = SharedContext(self._llama, self._limit, self._parallel)
        self._check_logits(file)

    def close(self) -> None:
        """Free the model's memory; it cannot be used afterwards."""
        with self._lock:
            self._context.close()
            self._llama.close()

    def _answer(
        self, prompts: Sequence[str], schema: Schema | None, max_tokens: int, until: float | None
    ) -> list[Completion]:
        with self._lock:
            grammar = None if schema is None else self._grammar(schema)
            if isinstance(grammar, str):
                return [Completion("", error=grammar)] * len(prompts)
            rules = Rules(self.sampling, grammar, self._is_end, self._deadline, until)
            answers = [self._new_answer(prompt, rules, max_tokens) for prompt in prompts]
            turns = Turns(self._context, self._parallel, rules, alone=self._alone)
            turns.write([answer for answer in answers if answer.error is None])
            return [self._completion(answer) for answer in answers]

    def _grammar(self, schema: Schema) -> Grammar | str:
        """The grammar of a schema, or why there is none."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._grammars:
            try:
                self._grammars[key] = Grammar.of(self._llama, schema)
            except ValueError as error:
                self._grammars[key] = str(error)
        return self._grammars[key]

    def _new_answer(self, prompt: str, rules: Rules, max_tokens: int) -> Answer:
        tokens = self._tokenize(prompt)
        room = self._limit - len(tokens)
        chance = hashlib.sha256(printable(prompt).encode()).digest()
        answer = Answer(tokens, rules, min(max_tokens, room), [self.sampling.seed, *chance])
        if room < 1:
            answer.error = (
                f"the prompt is {len(tokens)} tokens long, the context holds {self._limit}: shorten the prompt, "
                "or give a larger n_ctx where the model allows it"
            )
        return answer

    def _is_end(self, token: int) -> bool:
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(self._llama.model), token))

    def _completion(self, answer: Answer) -> Completion:
        text = decode(self._llama.detokenize([self._llama.token_bos(), *answer.written]))
        read = len(answer.prompt) if answer.begun else 0
        return Completion(printable(text), read, len(answer.written), error=answer.error, sent=answer.sent)

    def _tokenize(self, prompt: str) -> list[int]:
        if self._template is None:
            return self._llama.tokenize(printable(prompt).encode(), add_bos=True, special=False)
        text = self._template(messages=[{"role": "user", "content": printable(prompt)}]).prompt
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def _check_logits(self, file: Path) -> None:
        """Refuse weights that give no numbers: there is nothing to be drawn from such logits."""
        logits = self._context.read({0: self._llama.tokenize(b"a", add_bos=True)})
        self._context.clear()
        if not np.isfinite(logits).all():
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


def is_small(path: Path) -> bool:
    """Whether a model is so small that several processes can each run it on one thread."""
    return path.is_file() and path.stat().st_size <= _SMALL_MODEL


def _load(path: Path, n_threads: int | None, n_gpu_layers: int) -> Llama:
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
    if n_threads is None and is_small(path):
        n_threads = 1
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
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: it is incomplete or damaged, needs a newer "
            f"llama-cpp-python than {llama_cpp.__version__}, or more memory than there is"
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
