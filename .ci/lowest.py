"""Prints the lowest versions that ``pyproject.toml`` allows, as constraints for pip.

    python .ci/lowest.py > constraints-lowest.txt

torch stays at its version in ``constraints.txt``: an older one comes without a build for the processor alone.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINNED = ("torch",)


def lowest(project: dict) -> dict[str, str]:
    """The lowest version of every requirement, over all extras; of several bounds the highest."""
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    found: dict[str, str] = {}
    for line in wanted:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", line).groups()
        found[name] = max(bound, found.get(name, "0"), key=lambda version: [int(part) for part in version.split(".")])
    return found


def main() -> None:
    """Print them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for name, version in lowest(project).items():
        print(f"{name}=={pinned[name] if name in PINNED else version}")


if __name__ == "__main__":
    main()
