"""The order of the house.

Imports point one way: experiments -> agents -> envs -> datasets. Within a layer no circle runs through folders.
Folders, modules and functions have their limits, bandits know no session, and LERL's words stay where LERL is.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("datasets", "envs", "agents", "experiments")
EXTRAS = ("llama_cpp", "openai", "jinja2", "plotly", "scipy", "sklearn", "gguf", "hypothesis", "pytest")


MOST_MODULES = 15
"""In a folder, its ``__init__`` left out: more are no longer taken in at a glance."""
MOST_LINES, MOST_FUNCTION_LINES = 450, 70
"""Of a module, and of a function without its docstring."""
LERL_ONLY = ("T_int", "R_cum")
"""Names of LERL's metrics."""
LERL_FOLDERS = (
    "experiments/lerl",
    "experiments/commands",
    "experiments/planner_lm",
    "experiments/satiation",
    "agents/planning",
)


def modules(layer: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / layer).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(("rapport", *(p for p in parts if p != "__init__"))), path


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports from rapport, wherever in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    wrong = []
    for name, path in modules(layer):
        for line, target in imported(name, path):
            parts = target.split(".")
            if parts[0] != "rapport":
                continue
            second = parts[1] if len(parts) > 1 else ""
            if second in above or second not in (*LAYERS, "__version__", "_deprecation", "_moved"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not wrong, f"{layer} must not know {', '.join(above) or 'the package root'}: {wrong}"


def folder_of(target: str) -> str | None:
    """The folder of an imported module or name; None outside the layers."""
    parts = target.split(".")[1:]
    while parts and parts[0] in LAYERS:
        path = ROOT.joinpath(*parts)
        if path.is_dir():
            return "/".join(parts)
        if path.with_suffix(".py").is_file():
            return "/".join(parts[:-1])
        parts = parts[:-1]
    return None


def folder_imports(layer: str) -> dict[str, set[str]]:
    """Each folder of a layer with the folders of the layer that it imports from, for types alone included."""
    graph: dict[str, set[str]] = defaultdict(set)
    for name, path in modules(layer):
        folder = path.parent.relative_to(ROOT).as_posix()
        for _, target in imported(name, path):
            found = folder_of(target) if target.startswith(f"rapport.{layer}") else None
            if found not in (None, folder):
                graph[folder].add(found)
    return graph


def circle(graph: dict[str, set[str]]) -> str | None:
    """One circle of folders; None where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None


@pytest.mark.parametrize("layer", LAYERS)
def test_no_circle_runs_through_folders(layer: str) -> None:
    assert circle(folder_imports(layer)) is None


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) in ("b <- c <- b", "c <- b <- c")
    assert folder_of("rapport.envs.session.engine.core.SessionCore") == "envs/session/engine"
    assert folder_of("rapport.agents.llm.open_llm") == "agents/llm"
    assert folder_of("rapport.__version__") is None
    assert "datasets/files" in folder_imports("datasets")["datasets/kuairand"]


def test_no_folder_is_crowded() -> None:
    sizes: dict[str, int] = defaultdict(int)
    for layer in LAYERS:
        for _, path in modules(layer):
            sizes[path.parent.relative_to(ROOT).as_posix()] += path.name != "__init__.py"
    assert {folder: n for folder, n in sizes.items() if n > MOST_MODULES} == {}


def test_modules_and_functions_are_short() -> None:
    long = []
    for layer in LAYERS:
        for name, path in modules(layer):
            text = path.read_text("utf-8")
            if (lines := len(text.splitlines())) > MOST_LINES:
                long.append(f"{name}: {lines} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    docstring = ast.get_docstring(node, clean=False) or ""
                    lines = (node.end_lineno or 0) - node.lineno + 1 - len(docstring.splitlines())
                    if lines > MOST_FUNCTION_LINES:
                        long.append(f"{name}.{node.name}: {lines} lines")
    assert not long


@pytest.mark.skipif(not (ROOT / "agents" / "bandits").is_dir(), reason="bandits have no folder yet")
def test_bandits_know_no_session() -> None:
    unwanted = ("torch", "rapport.envs", "rapport.datasets")
    wrong = [
        f"{path.name}:{line} imports {target}"
        for name, path in modules("agents/bandits")
        for line, target in imported(name, path)
        if target.startswith(unwanted)
    ]
    assert not wrong


def test_only_lerls_folders_have_its_words() -> None:
    found = []
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in (".py", ".j2", ".md") and not name.startswith(LERL_FOLDERS):
                text = path.read_text("utf-8")
                found += [f"{name}: {word}" for word in LERL_ONLY if word in text]
    assert not found


def test_the_root_knows_neither_agents_nor_experiments() -> None:
    wrong = []
    for path in sorted((ROOT / "src" / "rapport").glob("*.py")):
        if path.name == "__main__.py":
            continue
        name = "rapport" if path.name == "__init__.py" else f"rapport.{path.stem}"
        wrong += [t for _, t in imported(name, path) if t.startswith(("rapport.agents", "rapport.experiments"))]
    assert not wrong


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    path = tmp_path / "core.py"
    path.write_text("from ...agents import lerl\nfrom . import rules\nimport rapport.datasets.schema\n")
    found = [target for _, target in imported("rapport.envs.session.core", path)]
    assert found == ["rapport.agents.lerl", "rapport.envs.session.rules", "rapport.datasets.schema"]


@pytest.mark.slow
def test_the_core_needs_no_extra() -> None:
    """Every module of datasets and envs imports where none of the extras is installed."""
    names = [name for layer in ("datasets", "envs") for name, _ in modules(layer)]
    program = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"{{name}} is an extra", name=name)
sys.meta_path.insert(0, Block())
import rapport
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
