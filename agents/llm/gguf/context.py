"""One llama.cpp context (KV cache) that several sequences share."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_int8, c_int32, cast
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llama_cpp import Llama

FloatArray = NDArray[np.float32]

STEP = 128
"""Most tokens per decode call; larger calls are not faster, and the time limit is checked between calls."""


class ContextFullError(RuntimeError):
    """The context has too few free cells for the tokens; nothing was decoded."""


class SharedContext:
    """Sequences of tokens in one pool of KV cells; a common prefix of two sequences takes its cells only once."""

    def __init__(self, llama: Llama, n_ctx: int, n_sequences: int) -> None:
        """Create an empty context in addition to the model's own.

        Args:
            llama: the model; its numbers of threads apply.
            n_ctx: number of cells, one per token.
            n_sequences: number of sequences.

        Raises:
            ValueError: llama.cpp cannot create the context.
        """
        import llama_cpp

        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = n_ctx
        parameters.n_seq_max = n_sequences
        parameters.n_batch = parameters.n_ubatch = STEP
        parameters.kv_unified = True  # one pool: sequences can share cells
        # Without flash attention the cells of all sequences form one matrix: several times as fast for few cells.
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.no_perf = True
        parameters.n_threads, parameters.n_threads_batch = llama.n_threads, llama.n_threads_batch
        self._context = llama_cpp.llama_init_from_model(llama.model, parameters)
        if not self._context:
            raise ValueError(
                f"llama.cpp cannot create a context of {n_ctx} tokens for {n_sequences} prompts: give a smaller n_ctx "
                "or free memory"
            )
        self._llama = llama  # must outlive the context
        self._free = weakref.finalize(self, llama_cpp.llama_free, self._context)
        self._memory = llama_cpp.llama_get_memory(self._context)
        # The state of a recurrent model cannot be split by tokens, so no part of it can be shared.
        self._can_share = not (
            llama_cpp.llama_model_is_recurrent(llama.model) or llama_cpp.llama_model_is_hybrid(llama.model)
        )
        self._n_vocab = llama.n_vocab()
        self._n_cells = n_ctx
        self._known: list[list[int]] = [[] for _ in range(n_sequences)]
        self._cells: list[list[int]] = [[] for _ in range(n_sequences)]
        self._next_cell = 0

    def close(self) -> None:
        """Free the memory. The context cannot be used afterwards."""
        self._free()

    def length(self, sequence: int) -> int:
        """Number of tokens of a sequence."""
        return len(self._known[sequence])

    def begin(self, sequence: int, tokens: Sequence[int]) -> int:
        """Start a sequence with the longest prefix of `tokens` that any sequence has in the cache.

        The last token is never taken from the cache, because its logits are needed.

        Returns:
            Number of tokens taken from the cache.
        """
        import llama_cpp

        if not self._can_share:
            self.forget(sequence)
            return 0
        shared = [common_length(known, tokens[:-1]) for known in self._known]
        best = max(range(len(shared)), key=lambda other: (shared[other], other == sequence))
        if not self.forget(sequence, shared[best] if best == sequence else 0):
            return 0
        if best != sequence and shared[best]:
            llama_cpp.llama_memory_seq_cp(self._memory, best, sequence, 0, shared[best])
            self._known[sequence] = list(tokens[: shared[best]])
            self._cells[sequence] = self._cells[best][: shared[best]]
        return shared[best]

    def forget(self, sequence: int, keep: int = 0) -> bool:
        """Drop the tokens of a sequence after the first `keep`; False where the model can only drop all of them."""
        import llama_cpp

        if keep >= len(self._known[sequence]):
            return True
        kept = llama_cpp.llama_memory_seq_rm(self._memory, sequence, keep, -1) if self._memory else keep == 0
        if not kept:
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            keep = 0
        del self._known[sequence][keep:], self._cells[sequence][keep:]
        return bool(kept)

    def clear(self) -> None:
        """Drop the tokens of all sequences."""
        import llama_cpp

        llama_cpp.llama_memory_clear(self._memory, True)
        self._known = [[] for _ in self._known]
        self._cells = [[] for _ in self._cells]

    def decode(self, chunks: Mapping[int, Sequence[int]]) -> FloatArray:
        """Append tokens to S sequences in one decode call.

        Args:
            chunks: the next tokens of each sequence, at least 1 per sequence and at most `STEP` in total.

        Returns:
            Logits of the next token of each sequence, in the order of `chunks`, shape (S, V).

        Raises:
            ContextFullError: there are too few free cells.
            RuntimeError: llama.cpp failed; all sequences are empty afterwards.
        """
        import llama_cpp

        lengths = [len(chunk) for chunk in chunks.values()]
        self._check_room(sum(lengths))
        status = llama_cpp.llama_decode(self._context, self._batch(chunks, lengths))
        if status == 1:
            raise ContextFullError(f"no room for {sum(lengths)} more tokens")
        if status != 0:
            self.clear()
            raise RuntimeError(f"llama_decode returned {status}")
        for sequence, chunk in chunks.items():
            self._known[sequence].extend(chunk)
            self._cells[sequence].extend(range(self._next_cell, self._next_cell + len(chunk)))
            self._next_cell += len(chunk)
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(len(chunks), self._n_vocab)).copy()

    def _check_room(self, count: int) -> None:
        """Detect a full context before llama.cpp does, which would print to the terminal each time."""
        if sum(map(len, self._cells)) + count <= self._n_cells:
            return
        used = len(set().union(*self._cells))  # a shared cell counts once
        if used + count > self._n_cells:
            raise ContextFullError(f"{used} of {self._n_cells} cells are taken, {count} more are needed")

    def _batch(self, chunks: Mapping[int, Sequence[int]], lengths: list[int]) -> object:
        """A llama.cpp batch of the tokens, with logits at the end of each chunk."""
        import llama_cpp

        count = sum(lengths)
        ends = np.zeros(count, np.int8)
        ends[np.cumsum(lengths) - 1] = 1
        starts = [len(self._known[sequence]) for sequence in chunks]
        position = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)]).astype(np.int32)
        sequence = np.repeat(np.array(list(chunks), np.int32), lengths)
        arrays = {
            "token": np.concatenate([np.asarray(chunk, np.int32) for chunk in chunks.values()]),
            "pos": position,
            "n_seq_id": np.ones(count, np.int32),
            "seq_id": (sequence.ctypes.data + sequence.itemsize * np.arange(count)).astype(np.uintp),  # pointers
            "logits": ends,
        }
        types: dict[str, Any] = {"seq_id": POINTER(POINTER(c_int32)), "logits": POINTER(c_int8)}
        batch = llama_cpp.llama_batch()
        batch.n_tokens = count
        for name, array in arrays.items():
            setattr(batch, name, cast(array.ctypes.data, types.get(name, POINTER(c_int32))))
        batch.arrays = (arrays, sequence)  # must live as long as the batch, which points into them
        return batch


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix of two sequences."""
    length = min(len(first), len(second))
    differs = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differs[0]) if len(differs) else length
