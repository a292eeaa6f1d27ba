"""Public names of the agents' packages: each is found, torch waits until it is needed, and old names still answer."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("agents", "agents.bandits", "agents.baselines", "agents.planning", "agents.policies")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_found(package: str) -> None:
    found = importlib.import_module(f"rapport.{package}")
    assert len(found.__all__) == len(set(found.__all__)) > 4
    for name in found.__all__:
        value = getattr(found, name)
        assert not isinstance(value, type(sys)), f"{name} is a module"
    with pytest.raises(AttributeError, match=f"module 'rapport.{package}' has no attribute 'nothing'"):
        _ = found.nothing


@pytest.mark.parametrize("package", ["agents", "agents.bandits", "agents.planning"])
def test_importing_a_package_does_not_import_torch(package: str) -> None:
    program = f"import sys, rapport.{package}; print('torch' in sys.modules, 'stable_baselines3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("lerl", "LowLevel", "PPOConfig"),
        ("lerl", "first_policy", "pretrain_policy"),
        ("lerl", "served_slates", "serving_policy"),
        ("baselines.task", "Lesson", "TrainingTask"),
        ("baselines.click_prior", "LogModel", "CTRModel"),
        ("planning.build", "HEURISTIC", "STORED_TOP_K"),
    ],
)
def test_old_names_answer_with_a_warning(module: str, old: str, new: str) -> None:
    found = importlib.import_module(f"rapport.agents.{module}")
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now"):
        assert getattr(found, old) is getattr(found, new)
