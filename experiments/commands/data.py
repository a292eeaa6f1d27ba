"""``rapport data list | fetch | check`` and ``rapport twin measure | show``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapport.datasets.files.atomic import write_atomically
from rapport.datasets.files.directory import data_directory
from rapport.datasets.registry.load import DATASETS, DatasetInfo, available, info, load
from rapport.datasets.twin import FIGURES_FILE, measure
from rapport.experiments.commands.options import DataDirectory

_COLOURS = {"ok": "green", "partial": "yellow", "absent": "dim", "damaged": "bold red"}
"""By state of a file, as of :class:`rapport.datasets.registry.check.State`."""


@dataclass
class DataList(DataDirectory):
    """List the data sets that Rapport knows, and which of them are here."""

    def run(self) -> int:
        """Print the table; 0."""
        directory = data_directory(self.data_dir)
        table = Table(title=Text(f"Data directory: {directory}"))
        table.add_column("name", no_wrap=True)
        table.add_column("here")
        table.add_column("environment")
        table.add_column("contents", overflow="fold")
        table.add_column("licence", no_wrap=True)
        for entry in DATASETS.values():
            here = "yes" if _is_here(entry, directory) else "no"
            readable = "yes" if entry.readable else "no"
            table.add_row(entry.name, here, readable, entry.contents, entry.licence)
        console = Console()
        console.print(table)
        for entry in DATASETS.values():
            console.print(f"{entry.name}: {entry.url}", highlight=False, soft_wrap=True)
        for citation in dict.fromkeys(entry.citation for entry in DATASETS.values()):
            console.print(f"Cite: {citation}", highlight=False)
        return 0


@dataclass
class DataFetch(DataDirectory):
    """Download a data set, verify its checksum and unpack it; an interrupted download goes on where it stopped."""

    name: Annotated[str, tyro.conf.Positional] = "kuairand-pure"
    """Which data set; `rapport data list` names them."""
    base_url: str | None = None
    """Fetch the archive from this address (a mirror) instead of the official one; the checksum stays the same."""
    overwrite: bool = False
    """Fetch it even if it is there; the old folder is kept under another name."""

    def run(self) -> int:
        """Fetch the data set and print where it is; 0. Errors are raised as DataError."""
        from rapport.datasets.registry.fetch import fetch

        entry = info(self.name)
        console = Console()
        console.print(
            f"{entry.name}: {entry.contents}; {entry.licence}. Please cite: {entry.citation}", highlight=False
        )
        folder = fetch(self.name, self.data_dir, base_url=self.base_url, overwrite=self.overwrite)
        console.print(Text.assemble(("Done:", "green"), f" {folder}"), soft_wrap=True)
        return 0


@dataclass
class DataCheck(DataDirectory):
    """Compare the files in the data directory with what was published, and read what can be read."""

    def run(self) -> int:
        """Print the table; 1 if something is damaged, else 0 (a part that is absent is no fault)."""
        from rapport.datasets.registry.check import State, check

        lines = check(self.data_dir)
        table = Table(title=Text(f"Data directory: {data_directory(self.data_dir)}"))
        table.add_column("data set", no_wrap=True)
        table.add_column("file", overflow="fold", min_width=20)
        table.add_column("rows", justify="right")
        table.add_column("published", justify="right")
        table.add_column("state")
        table.add_column("note", overflow="fold")
        for line in lines:
            colour = _COLOURS[line.state]
            table.add_row(
                *(Text(line.dataset), Text(line.file), _count(line.rows), _count(line.published)),
                *(Text(str(line.state), colour), Text(line.note)),
            )
        Console().print(table)
        return 1 if any(line.state is State.DAMAGED for line in lines) else 0


@dataclass
class TwinMeasure(DataDirectory):
    """Compute from a real log the figures that the statistical twin is drawn from, and write them as JSON."""

    name: str = "kuairand-pure"
    """The data set to measure."""
    output: Path = FIGURES_FILE
    """The file to write; by default the one the package ships."""

    def run(self) -> int:
        """Measure and write; 0."""
        entry = info(self.name)
        data = load(self.name, self.data_dir)
        about = {
            "about": "Aggregates of a real log from which a statistical twin is drawn; no row of anybody's data.",
            "command": f"rapport twin measure --name {self.name}",
            "source": entry.citation,
            "licence": entry.licence,
            "measured_on": {
                "users": data.population.n_users,
                "items": data.catalog.n_items,
                "rows": len(data.log),
                "fully_recorded_rows": int((data.log.feedback >= 0).all(axis=1).sum()),
            },
        }
        content = json.dumps(about | {"figures": measure(data)}, indent=1, ensure_ascii=False)
        write_atomically(self.output, content + "\n")
        told = f" {self.output} ({len(content):,} characters)"
        Console().print(Text.assemble(("Wrote", "green"), told), soft_wrap=True)
        return 0


@dataclass
class TwinShow:
    """Show the figures that the statistical twin is drawn from."""

    def run(self) -> int:
        """Print categories with their shares and click rates; 0."""
        document = json.loads(FIGURES_FILE.read_text(encoding="utf-8"))
        table = Table(title="Categories of the statistical twin")
        table.add_column("category")
        for name in ("items, %", "exposures, %", "click rate, %"):
            table.add_column(name, justify="right")
        categories = document["figures"]["categories"]
        keys = ("share_of_items", "share_of_exposures", "click_rate")
        shares = (categories["names"], *(categories[k] for k in keys))
        for name, *values in zip(*shares, strict=True):
            table.add_row(name, *(f"{100 * value:.1f}" for value in values))
        console = Console()
        console.print(table)
        console.print(f"{document['about']}\nSource: {document['source']}; {document['licence']}", highlight=False)
        return 0


def _is_here(entry: DatasetInfo, directory: Path) -> bool:
    return available(entry.name, directory) if entry.readable else (directory / entry.folder).is_dir()


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
