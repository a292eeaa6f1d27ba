"""The public names are there, are what they are called, and are imported only when they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rapport
import rapport.envs


@pytest.mark.parametrize("package", [rapport, rapport.envs], ids=lambda package: package.__name__)
def test_every_public_name_is_there(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert sorted(names) == sorted(set(names))
    for name in names:
        found = getattr(package, name)
        assert name == "__version__" or found.__name__ == name
        assert name in dir(package)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match=r"module 'rapport\.envs' has no attribute 'SesionEnv'"):
        rapport.envs.SesionEnv  # noqa: B018


def test_importing_the_packages_is_light(tmp_path: Path) -> None:
    program = """
import sys
import rapport
import rapport.envs
dir(rapport), dir(rapport.envs)
heavy = ("torch", "pandas", "pyarrow", "stable_baselines3", "numba", "PIL", "rich")
print([name for name in heavy if name in sys.modules], [n for n in sys.modules if n.startswith("rapport.envs.session")])
rapport.envs.Positional, rapport.envs.MatrixResponse, rapport.envs.SessionEnv, rapport.SessionData, rapport.envs.prepare
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[] []", "[]"]


def test_from_description_is_from_manifest() -> None:
    with pytest.warns(DeprecationWarning, match=r"rapport\.from_description is called from_manifest now") as caught:
        assert rapport.from_description is rapport.from_manifest
    assert caught[0].filename == __file__
