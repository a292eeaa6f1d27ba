from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rapport.datasets.schema import SessionData
    from rapport.envs.session.response.base import MatrixResponse
    from rapport.envs.session.response.learned import SequenceResponse


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


@pytest.fixture(scope="session")
def kuairec_files() -> ModuleType:
    """The module that writes small KuaiRec folders (tests/datasets/kuairec_files.py)."""
    path = Path(__file__).parent / "datasets" / "kuairec_files.py"
    spec = importlib.util.spec_from_file_location("kuairec_files", path)
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

    from rapport.envs.session.response.base import MatrixResponse

    shape = (small_data.population.n_users, small_data.catalog.n_items, len(small_data.log.behaviours))
    return MatrixResponse(np.random.default_rng(5).random(shape), small_data.log.behaviours)


@pytest.fixture(scope="session")
def sequence_response(small_data: SessionData) -> SequenceResponse:
    """A user model of random weights for the small twin, its logits drawn apart so that history matters."""
    import torch

    from rapport.envs.session.response.fit import Fitted, count_items, states_after
    from rapport.envs.session.response.learned import SequenceResponse
    from rapport.envs.session.response.user_model import new_user_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = new_user_model(small_data).eval()
        for weight in model.counted.parameters():  # which begin as nothing
            torch.nn.init.normal_(weight, std=0.1)
    count_items(model, small_data, small_data.test_from_ms)
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


Reply = tuple[int, Any]


class ChatServer:
    """An OpenAI-compatible server on loopback that replies as `reply(request) -> (status, body)` says."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.models = ["tiny"]
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in server.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.paths.append(self.path)
                self.send(*server.reply(body))

            def send(self, status: int, body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client has hung up

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._running = True
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def hang(self, request: dict[str, Any]) -> Reply:
        """A reply that does not come before the test ends."""
        self.release.wait(30)
        return 500, {}

    def stop(self) -> None:
        self.release.set()
        if self._running:
            self._running = False
            self._http.shutdown()
            self._http.server_close()


def chat_answer(text: str, finish_reason: str = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "t",
        "choices": [choice],
        "usage": usage,
    }


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any]], Reply]], ChatServer]]:
    """Starts chat servers and stops them after the test."""
    started: list[ChatServer] = []

    def start(reply: Callable[[dict[str, Any]], Reply]) -> ChatServer:
        started.append(ChatServer(reply))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def answer() -> Callable[..., Reply]:
    """Builds the body of a chat completion."""
    return chat_answer
