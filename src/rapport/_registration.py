"""Registers the environments with Gymnasium: at once where it is imported, else as soon as it is.

Gymnasium takes longer to import than all else that a short command needs, so Rapport does not import it by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_REGISTRY = "gymnasium.envs.registration"


class _Finder(MetaPathFinder):
    """Finds Gymnasium's registry as the other finders do, and has the ids registered when it has been loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader  # as without a word from here
        self.loader.exec_module(module)
        _register()


def register_when_imported() -> None:
    """Register the ids now, or when Gymnasium is imported."""
    if _REGISTRY in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    from rapport.envs.registration import register_environments

    register_environments()
