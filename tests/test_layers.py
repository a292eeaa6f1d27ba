"""Imports point one way: experiments -> agents -> envs -> datasets, and nothing imports experiments."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("datasets", "envs", "agents", "experiments")
EXTRAS = ("llama_cpp", "openai", "jinja2", "plotly", "scipy", "sklearn", "gguf", "hypothesis", "pytest")


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
