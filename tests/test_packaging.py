"""The wheel holds what the folders hold, and works away from them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import rapport

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("datasets", "envs", "agents", "experiments")
KEPT = ("src", *LAYERS, "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def folders_with_code() -> set[str]:
    found = {"rapport"}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            found.add(".".join(("rapport", *path.parent.relative_to(ROOT).parts)))
    return found


def data_files(project: dict[str, Any]) -> set[str]:
    """Paths inside the wheel of everything under the layers that is not Python."""
    found = set()
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts:
                found.add(f"rapport/{path.relative_to(ROOT).as_posix()}")
    return found


def test_packages_are_the_folders(project: dict[str, Any]) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == folders_with_code()


def test_every_data_file_is_declared(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]
    for name in data_files(project):
        folder, _, file = name.rpartition("/")
        declared = patterns.get(folder.replace("/", "."), [])
        assert any(fnmatch(file, pattern) for pattern in declared), f"{name} is not in package-data"


def test_links_are_relative_and_lead_to_the_folders() -> None:
    for layer in LAYERS:
        link = ROOT / "src" / "rapport" / layer
        assert link.is_symlink(), f"{link} must be a symbolic link"
        assert os.readlink(link) == f"../../{layer}"


def test_datasets_does_not_shadow_hugging_face() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    version = project["project"]["version"]
    assert rapport.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_constraints_pin_every_requirement(project: dict[str, Any]) -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), lines
    pinned = {_normal(line.partition("==")[0]) for line in lines}
    wanted = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    missing = {name for item in wanted if (name := _normal(re.split(r"[<>=!\[ ;]", item)[0])) not in pinned}
    assert not missing


def test_changelog_has_its_headings() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert headings[:6] == [
        *("Breaking Changes", "New Features", "Bug Fixes"),
        *("Deprecations", "Others", "Documentation"),
    ]


def test_continuous_integration_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_what_is_missing_without_python(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "run", "PYTHON=no-such-python"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "No Python 3.11 or newer with the venv module was found (tried: no-such-python)" in done.stderr


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel made from it, built in a copy so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("build") / "checkout"
    copy.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in KEPT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignore)
        elif source.exists():
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (copy / "dist").glob("*.tar.gz")
    (wheel,) = (copy / "dist").glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(distributions: tuple[Path, Path], project: dict[str, Any]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    code = {f"rapport/{path.relative_to(ROOT).as_posix()}" for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    root = {f"rapport/{path.name}" for path in (ROOT / "src" / "rapport").iterdir() if path.is_file()}
    assert held == code | root | data_files(project)


@pytest.mark.slow
def test_the_sdist_holds_the_licence_and_the_folders(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "experiments/results/stats.py"} <= held


@pytest.mark.slow
def test_the_installed_wheel_works_from_elsewhere(
    distributions: tuple[Path, Path], project: dict[str, Any], tmp_path: Path
) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([*pip, str(distributions[1])], check=True, capture_output=True, timeout=120)
    names = sorted(project["tool"]["setuptools"]["packages"])
    program = f"""
import importlib, pathlib, sys
import gymnasium, rapport
site = pathlib.Path({str(target)!r})
assert pathlib.Path(rapport.__file__).is_relative_to(site), rapport.__file__
for name in {names!r}:
    module = importlib.import_module(name)
    assert all(pathlib.Path(p).is_relative_to(site) for p in list(module.__path__)), (name, list(module.__path__))
for name in {sorted(data_files(project))!r}:
    assert (site / name).is_file(), name
print(rapport.__version__)
"""
    # The dependencies come from the running environment, rapport from the wheel.
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == project["project"]["version"]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
