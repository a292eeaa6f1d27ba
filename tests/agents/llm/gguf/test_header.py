"""Damaged GGUF headers are refused before llama.cpp sees them, which would abort the process or hang."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

import gguf

from rapport.agents.llm import open_llm
from rapport.agents.llm.gguf.backend import LlamaCppLLM, threads
from rapport.agents.llm.gguf.header import check_header


def changed(source: Path, target: Path, field: str, value: float) -> Path:
    """A copy of a file with one number of its metadata replaced, by the gguf package."""
    target.write_bytes(source.read_bytes())
    reader = gguf.GGUFReader(target, "r+")
    found = reader.fields[field]
    found.parts[found.data[0]][0] = value
    reader.data.flush()
    return target


@pytest.mark.parametrize(
    ("field", "value"),
    [(f"llama.{name}", value) for name in ("context_length", "block_count") for value in (0, 2**31 - 1, 2**32 - 1)]
    + [
        ("llama.context_length", 1),
        ("llama.block_count", 513),
        ("llama.embedding_length", 0),
        ("llama.attention.head_count", 2**31 - 1),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.attention.layer_norm_rms_epsilon", float("-inf")),
    ],
)
def test_a_number_that_no_model_has_is_named_with_its_field(
    tiny_gguf: Path, tmp_path: Path, field: str, value: float
) -> None:
    path = changed(tiny_gguf, tmp_path / "changed.gguf", field, value)
    with pytest.raises(ValueError, match=rf"changed\.gguf \([\d,]+ bytes\) cannot be loaded: {field} is ") as error:
        open_llm(path)
    assert f"{value:,}" in str(error.value)


def test_the_header_is_read_as_the_gguf_package_reads_it(make_gguf: Callable[..., Path]) -> None:
    path = make_gguf(chat=True, n_ctx=100)
    read, fields = check_header(path), gguf.GGUFReader(path).fields
    for name, value in read.items():
        assert value == fields[name].contents()
    lists = {name for name, field in fields.items() if field.types[:1] == [gguf.GGUFValueType.ARRAY]}
    assert set(read) == {name for name in fields if not name.startswith("GGUF.")} - lists
    assert read["llama.context_length"] == 100


def test_every_part_of_a_header_is_missed(tiny_gguf: Path, tmp_path: Path) -> None:
    data, path = tiny_gguf.read_bytes(), tmp_path / "part.gguf"
    path.write_bytes(b"GGML" + data[4:])
    with pytest.raises(ValueError, match=r"part\.gguf is no GGUF file: it begins with b'GGML'"):
        check_header(path)
    for size in (*range(4, 400, 7), 3_000, 6_000):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=rf"part\.gguf \({size:,} bytes\) cannot be loaded: it ends"):
            check_header(path)


def test_whatever_bytes_become_a_header_is_read_or_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    data, path, refused = tiny_gguf.read_bytes(), tmp_path / "changed.gguf", 0
    for place in range(4, 2_000, 7):
        path.write_bytes(data[:place] + struct.pack("<Q", 2**63 - 1 - place) + data[place + 8 :])
        try:
            check_header(path)
        except ValueError as error:
            assert "changed.gguf" in str(error)
            refused += 1
    assert refused > 100


TEMPLATES: dict[str, tuple[str, str]] = {
    "drops strings": (
        "{% for m in messages %}{% if m.content is not string %}{{ m.content }}{% endif %}{% endfor %}",
        "drops the prompt",
    ),
    "renders nothing": ("{# nothing #}", "drops the prompt; it renders ''"),
    "no template": ("{% for m in messages %}{{ m.content", "is no template ("),
    "raises": ("{{ raise_exception('not today') }}", "fails ("),
    "wrong index": ("{{ messages[7].content.x }}", "fails ("),
    "other text": ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "drops the prompt; it renders 'WHICH"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_chat_template_is_tried_at_loading(make_gguf: Callable[..., Path], kind: str) -> None:
    template, message = TEMPLATES[kind]
    path = make_gguf(chat_template=template)
    with pytest.raises(ValueError, match="its chat template") as error:
        open_llm(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_template_that_fails_on_one_prompt_is_an_error_of_its_own(make_gguf: Callable[..., Path]) -> None:
    template = "{% if 'bad' in messages[0].content %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    llm = LlamaCppLLM(make_gguf(chat_template=template), n_ctx=128)
    bad, good = llm.complete(["bad", "good"], None, 3)
    assert "its chat template fails" in str(bad.error) and bad.sent and good.error is None


def test_threads_are_one_unless_told_and_never_more_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5}, raising=False)
    for variable, default in (("", 1), ("3", 3), ("16", 4), ("2,1", 2), ("0", 1), ("many", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        assert threads(None) == default
        assert (threads(2), threads(64)) == (2, 4)
    with pytest.raises(ValueError, match="n_threads must be at least 1; got 0"):
        threads(0)


def test_a_late_batch_halves_the_prompts_at_a_time(tiny_gguf: Path, caplog: pytest.LogCaptureFixture) -> None:
    llm: Any = LlamaCppLLM(tiny_gguf, deadline=1e-6, parallel=4)
    assert all(a.error for a in llm.complete(["a" * 500] * 4, None, 50))
    assert "2 prompts at a time from now on" in caplog.text
    llm.complete(["a"] * 4)
    assert llm.complete(["a"])[0].error is not None and "1 prompts at a time" in caplog.text
