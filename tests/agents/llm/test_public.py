"""The public names of the language-model packages: all there, and cheap until they are used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = ["rapport.agents.llm", "rapport.agents.lm", "rapport.agents.planning.lm"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_them_loads_neither_torch_nor_an_extra() -> None:
    code = (
        f"import sys, {', '.join(PACKAGES)}\n"
        "heavy = {'torch', 'llama_cpp', 'openai', 'gguf', 'sentencepiece', 'huggingface_hub'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_old_name_works_with_a_warning() -> None:
    module = importlib.import_module("rapport.agents.planning.lm.policy_gradient")
    with pytest.warns(DeprecationWarning, match="Improving is called PolicyGradientConfig now"):
        assert module.Improving is module.PolicyGradientConfig
