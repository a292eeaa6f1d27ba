"""The kinds of hostile input."""

from __future__ import annotations

from tests.fuzz.inputs import Kind
from tests.fuzz.kinds.agents import Checkpoint, SimulatorCache
from tests.fuzz.kinds.command_line import CommandLine
from tests.fuzz.kinds.language import Answer, Pool, Transcript
from tests.fuzz.kinds.models import Gguf
from tests.fuzz.kinds.tables import Csv, Manifest, TableCache

KINDS: tuple[Kind, ...] = (
    Csv(),
    Manifest(),
    TableCache(),
    SimulatorCache(),
    Checkpoint(),
    Transcript(),
    Pool(),
    Gguf(),
    Answer(),
    CommandLine(),
)
