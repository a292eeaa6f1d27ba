"""One llama.cpp context in which several sequences are read and written side by side."""

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
"""Tokens computed at once at most: as fast as more, and the clock is read in between."""


class ContextFullError(RuntimeError):
    """There are no cells left for the tokens; nothing was read."""


class SharedContext:
    """Sequences of tokens over one pool of cells; what two of them have in common at their beginning is kept once."""

    def __init__(self, llama: Llama, n_ctx: int, n_sequences: int) -> None:
        """Make an empty context beside the model's own.

        Args:
            llama: the model, whose numbers of threads are used.
            n_ctx: cells, one for each token kept.
            n_sequences: how many sequences there can be at once.

        Raises:
            ValueError: llama.cpp cannot make it.
        """
        import llama_cpp

        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = n_ctx
        parameters.n_seq_max = n_sequences
        parameters.n_batch = parameters.n_ubatch = STEP
        parameters.kv_unified = True  # one pool: sequences can share cells
        # Without it the cells of all sequences are one matrix, which for few cells is several times as fast.
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.no_perf = True
        parameters.n_threads, parameters.n_threads_batch = llama.n_threads, llama.n_threads_batch
        self._context = llama_cpp.llama_init_from_model(llama.model, parameters)
        if not self._context:
            raise ValueError(
                f"llama.cpp makes no context for {n_ctx} tokens of {n_sequences} prompts: is there the memory for it?"
            )
        self._llama = llama  # must outlive the context
        self._free = weakref.finalize(self, llama_cpp.llama_free, self._context)
        self._memory = llama_cpp.llama_get_memory(self._context)
        # Recurrent models keep a state in which tokens cannot be told apart, so no part of it can be shared.
        self._can_share = not (
            llama_cpp.llama_model_is_recurrent(llama.model) or llama_cpp.llama_model_is_hybrid(llama.model)
        )
        self._n_vocab = llama.n_vocab()
        self._n_cells = n_ctx
        self._known: list[list[int]] = [[] for _ in range(n_sequences)]
        self._cells: list[list[int]] = [[] for _ in range(n_sequences)]
        self._next_cell = 0

    def close(self) -> None:
        """Free the memory; the context cannot be used afterwards."""
        self._free()

    def length(self, sequence: int) -> int:
        """Tokens that a sequence has."""
        return len(self._known[sequence])

    def begin(self, sequence: int, tokens: Sequence[int]) -> int:
        """Let a sequence begin like `tokens`, as far as any sequence has read them already.

        The last token is never taken over: it has to be read for what comes after it.

        Returns:
            Number of tokens that need not be read.
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
        """Drop a sequence's tokens but the first `keep`; False where they cannot be kept and all are dropped."""
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
        """Drop all sequences' tokens."""
        import llama_cpp

        llama_cpp.llama_memory_clear(self._memory, True)
        self._known = [[] for _ in self._known]
        self._cells = [[] for _ in self._cells]

    def read(self, chunks: Mapping[int, Sequence[int]]) -> FloatArray:
        """Read tokens that go on several sequences, all at once.

        Args:
            chunks: sequence to its next tokens, S sequences with at least 1 token each and `STEP` in all at most.

        Returns:
            Logits of what comes next in each sequence, in the order of `chunks`, shape (S, vocabulary).

        Raises:
            ContextFullError: there are not enough cells.
            RuntimeError: llama.cpp failed; no sequence has any tokens afterwards.
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
        """Find out what llama.cpp would find out too, and write to the terminal each time."""
        if sum(map(len, self._cells)) + count <= self._n_cells:
            return
        used = len(set().union(*self._cells))  # a cell that is shared counts once
        if used + count > self._n_cells:
            raise ContextFullError(f"{used} of {self._n_cells} cells are taken, {count} more are needed")

    def _batch(self, chunks: Mapping[int, Sequence[int]], lengths: list[int]) -> object:
        """The tokens as llama.cpp takes them, with logits asked for at each chunk's end."""
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
        batch.arrays = (arrays, sequence)  # kept alive as long as the batch that points into them
        return batch


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two sequences have in common at their beginning."""
    length = min(len(first), len(second))
    differs = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differs[0]) if len(differs) else length
