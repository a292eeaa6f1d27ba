from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def kuairand_files() -> ModuleType:
    """The module that writes small KuaiRand-Pure folders (tests/datasets/kuairand_files.py)."""
    path = Path(__file__).parent / "datasets" / "kuairand_files.py"
    spec = importlib.util.spec_from_file_location("kuairand_files", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "rapport-cache"))
    yield
