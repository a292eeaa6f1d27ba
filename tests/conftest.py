from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rapport.datasets.schema import SessionData
    from rapport.envs.session.response import MatrixResponse
    from rapport.envs.session.sequence_response import SequenceResponse


# Small models on threads that wait for each other are many times slower than on one; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture(scope="session")
def small_data() -> SessionData:
    """A twin of 200 users and 150 items."""
    from rapport.datasets.twin import twin

    return twin(n_users=200, n_items=150, seed=0)


@pytest.fixture(scope="session")
def matrix_response(small_data: SessionData) -> MatrixResponse:
    """Random probabilities for every user, item and behaviour of the small twin."""
    import numpy as np

    from rapport.envs.session.response import MatrixResponse

    shape = (small_data.population.n_users, small_data.catalog.n_items, len(small_data.log.behaviours))
    return MatrixResponse(np.random.default_rng(5).random(shape), small_data.log.behaviours)


@pytest.fixture(scope="session")
def sequence_response(small_data: SessionData) -> SequenceResponse:
    """A user model of random weights for the small twin, its logits drawn apart so that history matters."""
    import torch

    from rapport.envs.session.fit import Fitted, states_after
    from rapport.envs.session.sequence_response import SequenceResponse
    from rapport.envs.session.user_model import new_user_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = new_user_model(small_data).eval()
    behaviours = small_data.log.behaviours
    fitted = Fitted(model, torch.stack([torch.full((len(behaviours),), 3.0), torch.full((len(behaviours),), 0.2)]))
    start = states_after(model, small_data, small_data.test_from_ms, 96)
    return SequenceResponse(fitted, start, behaviours)


def _load_helper(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "agents" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_gguf(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes tiny GGUF models; arguments as in `tiny_gguf.write_tiny_gguf`."""
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    helper = _load_helper("tiny_gguf")

    def make(**options: Any) -> Path:
        if options.pop("chat", False):
            options["chat_template"] = helper.CHAT_TEMPLATE
        path: Path = helper.write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", **options)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_gguf(make_gguf: Callable[..., Path]) -> Path:
    """A real GGUF file with random weights."""
    return make_gguf()
