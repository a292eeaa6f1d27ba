"""``rapport bench environment | training | planner | streaming``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rapport.agents.lerl import PPOConfig
from rapport.agents.planning.lm.embedded import embedded_model
from rapport.datasets.kuairand import large as kuairand_large
from rapport.datasets.schema import SessionData
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.response.learned import SequenceResponse
from rapport.experiments.bench import environment, planner, streaming, training
from rapport.experiments.bench.timing import Speed, machine_facts
from rapport.experiments.commands.options import LocalData
from rapport.experiments.commands.simulator import fitted_simulator


@dataclass
class BenchEnvironment(LocalData):
    """User-steps per second of the session environments, beside bare NumPy loops in the same run."""

    batch_sizes: tuple[int, ...] = (1, 64, 512, 1_024, 8_192)
    """Users served at once."""
    threads: tuple[int, ...] = (1, 2)
    """Torch threads to time the learned response with."""
    seconds: float = 1.0
    """Of each subject in each round."""
    rounds: int = 5
    """Rounds, whose median is shown."""

    def run(self) -> int:
        """Time and print; 0."""
        _check(
            seconds=self.seconds,
            rounds=self.rounds,
            batch_sizes=min(self.batch_sizes, default=0),
            threads=min(self.threads, default=0),
        )
        data, response = _simulator(self)
        console = Console()
        _print_facts(console, data)
        with console.status("") as status:
            found = environment.measure_environment(
                data, response, self.batch_sizes, self.threads, self.seconds, self.rounds, status.update
            )
            status.update("Gymnasium's own benchmark")
            own = environment.gymnasium_benchmark(data, response, self.seconds)
            status.update("peak memory of a fresh process")
            batch = max(self.batch_sizes)
            memory = environment.peak_memory(environment.LEARNED, batch, data=self.data, root=self.root)
        console.print(environment_table(found))
        console.print(
            "gymnasium.utils.performance.benchmark_step on gym.make, learned response, 1 thread, slates drawn as it "
            f"goes: {own:,.0f} steps/s\nPeak memory of a fresh process that makes {environment.LEARNED} for "
            f"B = {batch:,} and steps it: {memory:.2f} GB",
            highlight=False,
        )
        return 0


@dataclass
class BenchTraining(LocalData):
    """Training transitions per second with updates, beside Stable-Baselines3's stock policy in the same run."""

    transitions: int = 40_000
    """To time for each policy and number of threads, after one rollout to warm up; rounded up to whole rollouts."""
    threads: tuple[int, ...] = (1, 2)
    """Torch threads to time."""
    n_envs: int = PPOConfig.n_envs
    """Users served at once."""

    def run(self) -> int:
        """Time and print; 0."""
        _check(transitions=self.transitions, n_envs=self.n_envs, threads=min(self.threads, default=0))
        data, response = _simulator(self)
        console = Console()
        _print_facts(console, data)
        with console.status("") as status:
            found = training.measure_training(
                data, response, PPOConfig(n_envs=self.n_envs), self.transitions, self.threads, report=status.update
            )
        console.print(training_table(found))
        return 0


@dataclass
class BenchPlanner(LocalData):
    """Plans per second of a language model in this process, beside plain llama-cpp-python in the same run."""

    llm: Path | None = None
    """A GGUF file; by default the embedded model."""
    batch_sizes: tuple[int, ...] = (1, 8, 64)
    """Users planned for at once."""
    threads: int = 1
    """Processor threads of llama.cpp."""
    seconds: float = 3.0
    """Of each subject in each round."""
    rounds: int = 5
    """Rounds, whose median is shown."""

    def run(self) -> int:
        """Time and print; 0."""
        _check(
            seconds=self.seconds, rounds=self.rounds, batch_sizes=min(self.batch_sizes, default=0), threads=self.threads
        )
        model = self.llm or embedded_model()
        data, response = _simulator(self)
        console = Console()
        _print_facts(console, data)
        console.print(
            f"llama-cpp-python {version('llama-cpp-python')} on {self.threads} thread(s), {model.name}, "
            f"{data.catalog.n_categories} categories",
            highlight=False,
        )
        with console.status("") as status:
            found = planner.measure_planner(
                *(data, response, model, self.batch_sizes, self.threads, self.seconds, self.rounds, status.update)
            )
        console.print(planner_table(found))
        return 0


@dataclass
class BenchStreaming:
    """Memory and speed of converting a made-up KuaiRand-27K that does not fit into memory."""

    rows: tuple[int, ...] = (20_000_000, 40_000_000)
    """Rows of the logs to write and convert, one after the other; a million rows are 80 MB of files."""
    max_items: int | None = kuairand_large.MAX_ITEMS
    """Videos to keep, the most shown ones."""
    videos: int | None = None
    """Videos of each log; by default one for every ten rows, as in the real one."""
    folder: Path | None = None
    """Where to put the files meanwhile; by default the system's temporary folder."""

    def run(self) -> int:
        """Measure and print; 0."""
        _check(rows=min(self.rows, default=0))
        console = Console()
        console.print(machine_facts(), highlight=False)
        with console.status("") as status:
            found = [
                streaming.measure(rows, self.folder, self.max_items, status.update, self.videos) for rows in self.rows
            ]
        console.print(streaming_table(found))
        for log in (measurement.conversion for measurement in found):
            console.print(
                f"{log.rows_read:,} rows: {log.videos:,} of {log.videos_read:,} videos kept, "
                f"{log.rows_dropped:,} rows of others dropped, {log.rows_repeated:,} repeated",
                highlight=False,
            )
        return 0


def streaming_table(found: list[streaming.Measurement]) -> Table:
    """The table of ``rapport bench streaming``."""
    shown = Table(
        title="Converting a made-up KuaiRand-27K and opening it, each in a process of its own (MB: 10^6 bytes; own: "
        "without mapped files)",
        title_justify="left",
    )
    for column in ("rows", "CSV, GB", "step", "seconds", "rows per second", "peak MB", "own MB"):
        shown.add_column(column, justify="left" if column == "step" else "right")
    for log in found:
        rows = log.conversion
        for name, step, count in (
            ("start", log.start, 0),
            ("convert", log.convert, rows.rows_read),
            ("open", log.open, rows.rows),
        ):
            speed = f"{count / step.seconds:,.0f}" if count else "-"
            cells = f"{step.seconds:.1f}", speed, f"{step.peak_mb:,.0f}", f"{step.own_mb:,.0f}"
            shown.add_row(f"{count:,}", f"{log.csv_bytes / 1e9:.2f}", name, *cells, end_section=name == "open")
    return shown


def environment_table(found: list[environment.EnvironmentSpeed]) -> Table:
    """The table of ``rapport bench environment``."""
    shown = Table(
        title="User-steps per second (median of rounds; slowest to fastest), and as a share of the "
        f"{environment.REFERENCE} with the same B and environment",
        title_justify="left",
    )
    for column in ("B", "environment", "threads", "subject", "per second", "rounds", "ratio"):
        words = column in ("environment", "subject")  # cut short they could not be told apart
        shown.add_column(column, justify="left" if words else "right", no_wrap=words)
    for place, row in enumerate(found):
        last = place + 1 == len(found) or found[place + 1].batch != row.batch
        threads, ratio = str(row.threads or "-"), "-" if row.ratio is None else f"{row.ratio:.2f}"
        name = row.environment.removeprefix("rapport/").removesuffix("-v0")
        cells = f"{row.batch:,}", name, threads, row.subject, *_cells(row.speed), ratio
        shown.add_row(*cells, end_section=last)
    return shown


def training_table(found: list[training.TrainingSpeed]) -> Table:
    """The table of ``rapport bench training``."""
    shown = Table(
        title="PPO under the top-k preference planner: training transitions per second, updates included (median of "
        f"rollouts; slowest to fastest). SlatePolicy is LERL's; {training.REFERENCE} is Stable-Baselines3's own, the "
        "reference",
        title_justify="left",
    )
    paper = f"minutes for {training.PAPER_TRANSITIONS:,}"
    columns = ("policy", "threads", "timed", "per second", "rollouts", "collecting", "ratio", paper)
    for column in columns:
        shown.add_column(column, justify="left" if column == "policy" else "right", no_wrap=column == "policy")
    for row in found:
        shown.add_row(
            *(row.subject, str(row.threads), f"{row.transitions:,}", *_cells(row.speed)),
            *(f"{100 * row.collecting:.0f} %", f"{row.ratio:.2f}", f"{row.paper_minutes:.1f}"),
        )
    return shown


def planner_table(found: list[planner.PlannerSpeed]) -> Table:
    """The table of ``rapport bench planner``."""
    shown = Table(
        title="Plans per second (median of rounds; slowest to fastest), and as a share of llama-cpp-python's "
        "create_completion, one prompt after the other with the same grammar, the reference",
        title_justify="left",
    )
    for column in ("planner", "B", "per second", "rounds", "ratio", "own plans"):
        shown.add_column(column, justify="left" if column == "planner" else "right", no_wrap=column == "planner")
    for row in found:
        rate, rounds = f"{row.speed.median:,.1f}", f"{row.speed.slowest:,.1f} - {row.speed.fastest:,.1f}"
        own = "-" if row.subject == planner.REFERENCE else f"{100 * row.own:.0f} %"
        shown.add_row(row.subject, str(row.batch), rate, rounds, f"{row.ratio:.2f}", own)
    return shown


def _cells(speed: Speed) -> tuple[str, str]:
    return f"{speed.median:,.0f}", f"{speed.slowest:,.0f} - {speed.fastest:,.0f}"


def _simulator(command: LocalData) -> tuple[SessionData, SequenceResponse]:
    data = command.session_data()
    return data, fitted_simulator(data, FitSettings())[0]


def _print_facts(console: Console, data: SessionData) -> None:
    console.print(machine_facts(), highlight=False)
    size = f"{data.population.n_users:,} users, {data.catalog.n_items:,} items"
    console.print(f"{data.name}: {size}; slates of {environment.SLATE}", highlight=False)


def _check(**arguments: float) -> None:
    for name, value in arguments.items():
        if not value > 0:
            raise ValueError(f"{name}: {value} is not above 0; give a positive number")
