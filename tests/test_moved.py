"""Old module paths: each is the module that has the new one, with one warning; nothing of the project uses them."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from rapport._moved import MODULES, PACKAGES

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("agents", "datasets", "envs", "experiments", "tests", "examples")


@pytest.mark.slow
@pytest.mark.parametrize("old", MODULES)
def test_an_old_path_is_the_new_module_and_warns_once(old: str) -> None:
    name, new = f"rapport.{old}", f"rapport.{MODULES[old]}"
    expected = importlib.import_module(new)
    spec = expected.__spec__
    sys.modules.pop(name, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert importlib.import_module(name) is expected
        assert importlib.import_module(name) is expected
    told = [str(w.message) for w in caught if issubclass(w.category, DeprecationWarning) and name in str(w.message)]
    assert told == [f"{name} is {new} now; the old path will be removed in version 0.2"]
    assert expected.__spec__ is spec and expected.__name__ == new


def test_no_old_path_hides_a_file() -> None:
    for old in MODULES:
        path = ROOT / old.replace(".", "/")
        assert not path.with_suffix(".py").exists() and not (path / "__init__.py").exists(), old


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_answers_for_the_module_that_had_its_path(package: str) -> None:
    found = importlib.import_module(f"rapport.{package}")
    module = importlib.import_module(f"rapport.{PACKAGES[package]}")
    public = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and n[0] != "_"]
    names = [name for name in public if name not in vars(found)]
    assert names
    for name in names:
        with pytest.warns(DeprecationWarning, match=rf"rapport\.{package}\.{name} is {module.__name__}\.{name} now"):
            assert getattr(found, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing
    with pytest.raises(AttributeError, match="no attribute '__path__of__'"):
        _ = found.__path__of__


def test_a_submodule_of_such_a_package_is_not_looked_for_in_the_old_module() -> None:
    program = """
import sys, warnings
warnings.simplefilter("error")
from rapport.datasets.kuairec import matrices
assert matrices.__name__ == "rapport.datasets.kuairec.matrices"
assert "rapport.datasets.kuairec.load" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_script_of_the_version_before_still_runs() -> None:
    program = """
import rapport
import rapport.envs.session.quit
from rapport.envs.session.quit import QUIT_RULES
from rapport.datasets.kuairand import BEHAVIOURS
from rapport.envs.session.response import MatrixResponse
from rapport.experiments.reproduce.paper import PAPER
from rapport.envs.session.engine import core, quit_rules
assert rapport.envs.session.quit is quit_rules and quit_rules.QUIT_RULES is QUIT_RULES
"""
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning:__main__", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for old in ("quit", "kuairand.BEHAVIOURS", "response.MatrixResponse", "reproduce.paper"):
        assert f"{old} is rapport." in done.stderr
    assert "QUIT_RULES" not in done.stderr and "engine" not in done.stderr.replace("session.engine.quit_rules now", "")


def test_a_package_that_is_gone_holds_its_old_modules_alone() -> None:
    import rapport.experiments.lerl.pages.paper as paper

    sys.modules.pop("rapport.experiments.reproduce.paper", None)
    with pytest.warns(DeprecationWarning, match=r"reproduce\.paper is rapport\.experiments\.lerl\.pages\.paper now"):
        assert importlib.import_module("rapport.experiments.reproduce.paper") is paper
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rapport.experiments.reproduce.config")  # a module of lerl that was never there


@pytest.mark.parametrize("name", ["datasets.streaming", "rapport.nothing", "rapports.datasets.streaming"])
def test_names_of_others_are_not_answered(name: str) -> None:
    (finder,) = (found for found in sys.meta_path if type(found).__module__ == "rapport._moved")
    assert finder.find_spec(name) is None
    assert finder.find_spec("rapport.datasets.streaming") is not None


def test_an_old_path_costs_nothing_until_it_is_asked_for() -> None:
    program = "import sys, rapport; print(*(n for n in sys.modules if n.startswith('rapport')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert set(done.stdout.split()) == {"rapport", "rapport._moved", "rapport._registration"}


def test_nothing_of_the_project_uses_an_old_path() -> None:
    used, old = [], {f"rapport.{name}" for name in MODULES}
    for path in (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            used += [f"{path}: {name}" for name in names if name in old]
    assert not used
