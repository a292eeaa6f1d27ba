"""GGUF files, as llama.cpp is asked to run them."""

from __future__ import annotations

import importlib.util
import struct
import tempfile
from pathlib import Path

import numpy as np
from numpy.random import Generator

from tests.fuzz.mutations import damaged, pick
from tests.fuzz.outcome import Attempt

NUMBERS = ("context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count")
SIZES = (0, 1, 2, 3, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
TEMPLATES = (
    "{{ messages",
    "{% for m in messages %}{% endfor %}",
    "{{ messages[5].content }}",
    "{{ raise_exception('no roles here') }}",
    "{{ undefined_name.attribute }}",
    "{% for m in messages %}{{ m.content | map(attribute='text') | list }}{% endfor %}",
    "{% if messages[0].content is string %}{% else %}{{ messages[0].content }}{% endif %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ 1 // 0 }}",
    "{% include 'other' %}",
)


class Gguf:
    """The header of a GGUF file, and the chat template in it."""

    name = "gguf"

    def missing(self) -> str | None:
        """The packages that write and run such files."""
        return next((name for name in ("gguf", "llama_cpp") if importlib.util.find_spec(name) is None), None)

    def prepare(self) -> None:
        """Write a tiny model, with and without a template."""
        from rapport.agents.llm.gguf import backend  # noqa: F401 - imported before the forks
        from tests.agents.tiny_gguf import CHAT_TEMPLATE, write_tiny_gguf

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "tiny.gguf")
            write_tiny_gguf(file, n_ctx=256)
            self._plain = file.read_bytes()
            write_tiny_gguf(file, n_ctx=256, chat_template=CHAT_TEMPLATE)
            self._chat = file.read_bytes()
            self._ask(file)

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A file with damage, another number in its header, or another template."""
        from tests.agents.tiny_gguf import write_tiny_gguf

        file = folder / "tiny.gguf"
        way = pick(rng, ("header", "header", "number", "number", "count", "bytes", "template", "weights"))
        content = self._chat if rng.random() < 0.5 else self._plain
        if way == "header":
            start, done = damaged(rng, content[:400])
            content = start + content[400:]
        elif way == "number":
            name, size = pick(rng, NUMBERS), pick(rng, SIZES)
            place = content.index(f"llama.{name}".encode()) + len(f"llama.{name}") + 4
            content, done = content[:place] + struct.pack("<I", size) + content[place + 4 :], f"{name} {size}"
        elif way == "count":
            place, size = pick(rng, (8, 16)), pick(rng, SIZES)
            content = content[:place] + struct.pack("<Q", size) + content[place + 8 :]
            done = f"{'tensors' if place == 8 else 'keys'} {size}"
        elif way == "bytes":
            content, done = damaged(rng, content)
        elif way == "weights":
            noise = np.full(2_000, np.nan, np.float32).tobytes()
            content, done = content[: -len(noise)] + noise, "weights are no numbers"
        else:
            done = pick(rng, TEMPLATES)
            write_tiny_gguf(file, n_ctx=256, chat_template=done)
            content = file.read_bytes()
        file.write_bytes(content)
        return Attempt(done, lambda: self._ask(file), names=(file.name,))

    def _ask(self, file: Path) -> None:
        from rapport.agents.llm.load import open_llm

        model = open_llm(file, timeout=5.0, n_ctx=256)
        for answer in model.complete(["Name a category."], None, 4):
            if answer.error:
                print(answer.error)
        model.close()  # type: ignore[attr-defined] # a file's
