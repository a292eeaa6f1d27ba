"""Code of a user's own: found by file or module, keyed by what it says, and its errors told in one sentence."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from rapport.experiments.core import identity
from rapport.experiments.core.own_code import OwnCode, OwnCodeError, called, is_own


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_class_is_loaded_from_its_file_and_finds_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "beside_it_one.py", "VALUE = 7\n")
    file = write(tmp_path / "mine.py", "import beside_it_one\nclass Agent:\n    value = beside_it_one.VALUE\n")
    code = OwnCode.of(f"{file}:Agent")
    assert code.load().value == 7 and code.shown == "mine.py:Agent"
    again = pickle.loads(pickle.dumps(code))  # as in another process
    assert again == code and again.load() is code.load()


def test_a_module_is_found_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "own_package_two" / "__init__.py", "")
    write(tmp_path / "own_package_two" / "parts.py", "N = 3\n")
    write(tmp_path / "own_package_two" / "agents.py", "from .parts import N\nclass Agent:\n    n = N\n")
    monkeypatch.chdir(tmp_path)
    code = OwnCode.of("own_package_two.agents:Agent")
    assert code.load().n == 3 and code.root == tmp_path
    before = code.digest
    write(tmp_path / "own_package_two" / "parts.py", "N = 4\n")
    assert OwnCode.of("own_package_two.agents:Agent").digest != before


def test_identity_follows_the_text_and_not_the_folder(tmp_path: Path) -> None:
    texts = {
        "mine.py": "import helper_three\nimport numpy\nclass Agent: pass\n",
        "helper_three.py": "import deep_three\n",
    }
    texts |= {"deep_three.py": "X = 1\n", "other.py": "Y = 1\n"}
    for folder in ("a", "b"):
        for name, text in texts.items():
            write(tmp_path / folder / name, text)
    first, moved = (OwnCode.of(f"{tmp_path / folder / 'mine.py'}:Agent") for folder in ("a", "b"))
    assert identity(first) == identity(moved) and str(tmp_path) not in str(identity(first))
    write(tmp_path / "b" / "other.py", "Y = 2\n")  # nobody imports it
    assert OwnCode.of(f"{tmp_path / 'b' / 'mine.py'}:Agent") == moved
    write(tmp_path / "b" / "deep_three.py", "X = 2\n")  # imported by what is imported
    assert OwnCode.of(f"{tmp_path / 'b' / 'mine.py'}:Agent").digest != moved.digest


def test_an_edited_file_is_loaded_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "class Agent:\n    value = 1\n")
    assert OwnCode.of(f"{file}:Agent").load().value == 1
    write(file, "class Agent:\n    value = 2\n")
    assert OwnCode.of(f"{file}:Agent").load().value == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{folder}/none.py:Agent", "there is no file {folder}/none.py; give FILE.py:NAME or package.module:NAME"),
        ("{folder}/mine.py", "names no class: give FILE.py:NAME"),
        ("{folder}/mine.py:", "names no class: give FILE.py:NAME"),
        ("{folder}/mine.py:Agnet", "mine.py has no class or function 'Agnet'; it has Agent, act"),
        ("{folder}/mine.py:SIZE", "mine.py has no class or function 'SIZE'; it has Agent, act"),
        ("{folder}/broken.py:Agent", "broken.py, line 2 is no Python: "),
        ("{folder}/zero.py:Agent", "importing {folder}/zero.py raised ZeroDivisionError: division by zero\n\n"),
        ("{folder}/leaves.py:Agent", "importing {folder}/leaves.py raised SystemExit: 0\n\n"),
        ("no_such_package.agents:Agent", "Python finds no module 'no_such_package.agents'"),
        ("sys:Agent", "Python finds no module 'sys'"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, given: str, message: str) -> None:
    write(tmp_path / "mine.py", "SIZE = 3\nclass Agent: pass\ndef act(observations): pass\n")
    write(tmp_path / "broken.py", "import os\nclass Agent pass\n")
    write(tmp_path / "zero.py", "1 / 0\nclass Agent: pass\n")
    write(tmp_path / "leaves.py", "raise SystemExit(0)\n")
    with pytest.raises(OwnCodeError, match=re.escape(message.replace("{folder}", str(tmp_path)))):
        OwnCode.of(given.replace("{folder}", str(tmp_path))).load()


def test_a_users_own_traceback_is_kept_also_over_processes(tmp_path: Path) -> None:
    text = "def inner():\n    raise KeyError('plan')\ndef act(observations):\n    return inner()\n"
    code = OwnCode.of(f"{write(tmp_path / 'mine.py', text)}:act")
    with pytest.raises(OwnCodeError) as caught:
        code.called("act(observations)", code.load(), {})
    message = str(pickle.loads(pickle.dumps(caught.value)))
    first, _, trace = message.partition("\n\n")
    assert first == "mine.py:act: act(observations) raised KeyError: 'plan'"
    assert trace.startswith("Traceback") and "line 4, in act" in trace and "line 2, in inner" in trace
    assert "own_code.py" not in trace  # it begins in the user's file
    with pytest.raises(OwnCodeError, match=r"^x: y raised ValueError\n\n"):
        called("x", "y", exec, "raise ValueError")
    with pytest.raises(OwnCodeError, match=r"^x: y raised ValueError: first\n\n"):
        called("x", "y", exec, "raise ValueError('first\\nsecond')")
    unprintable = "class Wrong(Exception):\n def __str__(self): return 1 / 0\nraise Wrong"
    with pytest.raises(OwnCodeError, match=r"^x: y raised Wrong: <exception str\(\) failed>\n\n"):
        called("x", "y", exec, unprintable)


def test_names_of_own_code_are_told_from_others() -> None:
    assert is_own("my.py:Planner") and is_own("a/b.py:Planner") and is_own("package.module:Planner")
    assert not any(is_own(name) for name in ("rotation", "greedy preference", "top-k preference", "my.py", "my.py:a b"))
