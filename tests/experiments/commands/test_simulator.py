"""``rapport simulator fit | card | compare``: the cache, the tables, the words."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rapport.datasets.schema import SessionData
from rapport.envs.session.official.fit import OfficialSettings
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.simulator_cache import simulator_path
from rapport.experiments.bench.timing import torch_threads
from rapport.experiments.commands import simulator as simulator_commands
from rapport.experiments.commands.options import LocalData
from rapport.experiments.commands.simulator import (
    SimulatorCardCommand,
    SimulatorCompare,
    SimulatorFit,
    fitted_simulator,
)
from rapport.experiments.report.page import to_markdown, write_page
from rapport.experiments.report.table import Table
from rapport.experiments.simulator import compare as simulator_compare
from rapport.experiments.simulator.card import Difference, Score, SimulatorCard
from rapport.experiments.simulator.card_page import card_page
from rapport.experiments.simulator.card_tables import (
    NOT_PUBLISHED,
    TOO_FEW,
    card_finding,
    card_notes,
    card_tables,
)
from rapport.experiments.simulator.compare import FACTORISATION, GRU, LERL, OURS, TRANSFORMER, compare_predictors
from rapport.experiments.simulator.counting_baselines import JOINT
from rapport.experiments.simulator.metrics import Bin, Interval, Reliability
from rapport.experiments.simulator.selection_bias import Selection

CARD = SimulatorCard(
    data="kuairand-pure",
    fingerprint="f" * 64,
    profile="corrected",
    test_from_ms=1651680000000,
    valid_from_ms=1651593600000,
    users=1_234,
    scores=(
        Score("standard", "click", "user model", 26_607, 11_552, 0.4237, 0.7306, 0.6005, 0.0121, 0.0086),
        Score("standard", "forward", "user model", 26_607, 12, 0.0006, None, 0.0068, 0.0006, 0.0004),
    ),
    differences=(
        Difference("standard", "click", "user x item", Interval(0.02, 0.01, 0.03), Interval(-0.01, -0.02, -0.005)),
        Difference("standard", "like", "user x item", Interval(-0.06, -0.08, -0.04), Interval(0.001, -0.002, 0.004)),
    ),
    cold=(Score("new users", "click", "user model", 114, 50, 0.45, 0.6, 0.66, 0.1, 0.1),),
    cold_differences=(
        Difference("new users", "click", "user x item", Interval(0.02, -0.01, 0.05), Interval(0, -0.02, 0.02)),
    ),
    reliability=(
        Reliability(
            "click",
            (Bin(0.1, Interval(0.12, 0.1, 0.14), 900), Bin(0.8, Interval(0.75, 0.7, 0.8), 800)),
            Interval(0.0121, 0.006, 0.018),
            0.0086,
        ),
    ),
    selection=(
        Selection("click", "all", "all", 26_607, 0.4342, 0.4266, 0.3842, 0.4512, 0.1762),
        Selection("click", "users", "few", 300, 0.4, 0.4, 0.3, None, None),
        Selection("click", "duration", "under 15 s", 300, 0.4, 0.4, 0.35, 0.41, 0.18),
    ),
    learned_from_random=False,
    bins=15,
    resamples=400,
    pairs=200_000,
)


SETTINGS = FitSettings(epochs=1, length=8, batch_size=64)


@pytest.fixture
def on_small_data(small_data: SessionData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SessionData]:
    """The commands find the small twin, fit it in a moment, and have a cache of their own."""
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(LocalData, "session_data", lambda self: small_data)
    monkeypatch.setattr(simulator_commands, "FitSettings", lambda: SETTINGS)
    with torch_threads(1):
        yield small_data


def text(*tables: Table) -> str:
    page = io.StringIO()
    console = Console(width=110, file=page)
    for table in tables:
        console.print(table.to_rich())
    return page.getvalue()


def test_tables_hold_every_figure_with_its_unit() -> None:
    tables = card_tables(CARD)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    scores, differences, reliability, cold, cold_differences, selection, users, duration = tables
    assert "26,607 exposures chosen by the platform, from 5 May 2022 on, 1,234 users" in scores.caption
    assert scores.rows[0] == ("click", "43.42 %", "user model", "42.37 %", "0.731", "0.6005", "1.21 % (0.86 %)")
    assert scores.rows[1][4] == TOO_FEW
    assert differences.rows[0][3:] == ("+0.0200 [+0.0100, +0.0300]", "-0.0100 [-0.0200, -0.0050]")
    assert selection.rows[0] == ("click", "all", "43.4 %", "42.7 %", "38.4 %", "0.90", "45.1 %", "17.6 %", "0.39")
    assert users.rows[0][-3:] == (NOT_PUBLISHED,) * 3 and duration.rows[0][1] == "under 15 s"
    lowest, highest = "10.00 %: 12.00 [10.00, 14.00] %", "80.00 %: 75.00 [70.00, 80.00] %"
    assert reliability.rows[0] == ("click", "1.21 [0.60, 1.80] %", "0.86 %", lowest, highest)
    assert cold.rows[0][:5] == ("new users", "click", "43.86 %", "user model", "114")
    assert cold_differences.rows[0][1] == "new users"


def test_the_terminal_shows_them_whole() -> None:
    shown = text(*card_tables(CARD))
    assert shown.count("log-loss") == 4 and shown.count("nats") == 4 and "…" not in shown
    assert all(len(line) <= 110 for line in shown.splitlines())


def test_notes_say_who_wins_and_what_not_to_trust() -> None:
    notes = " ".join(card_notes(CARD))
    assert "before 4 May 2022" in notes and "use all rows before 5 May 2022" in notes
    assert (
        "click, standard exposures: against user x item, the user model ranks better and its log-loss is better"
        in notes
    )
    assert "like, standard exposures: against user x item, the user model ranks worse" in notes
    assert "no different within the interval" in notes
    assert (
        "too generous to items nobody would have been shown, by +20.8 points" in notes and "from no random one" in notes
    )
    assert "Aylayan/KuaiRand_Pure" in notes and "CC BY-SA 4.0" in notes
    assert "balanced prior" not in notes


def test_notes_claim_no_more_than_was_there() -> None:
    plain = replace(CARD, selection=CARD.selection[1:2], profile="official")
    notes = " ".join(card_notes(plain))
    assert "Aylayan" not in notes and "real people" not in notes and "balanced prior" in notes
    assert "Random exposures were among the rows" in " ".join(card_notes(replace(CARD, learned_from_random=True)))


def test_the_finding_says_who_wins_by_log_loss() -> None:
    assert card_finding(CARD) == (
        "By log-loss, the user model predicts click better than counting; like as well as counting. Random items get "
        "click in 38.4 % of simulated exposures, where real people gave it in 17.6 %."
    )
    worse = replace(CARD.differences[0], log_loss=Interval(0.1, 0.05, 0.2))
    many = replace(CARD, differences=(worse, replace(worse, behaviour="like")), selection=())
    assert card_finding(many) == "By log-loss, the user model predicts click and like worse than counting."
    none = card_finding(replace(CARD, differences=(), selection=()))
    assert none == "The test days hold too few positives to compare the user model with counting."


def test_markdown_has_the_same_tables() -> None:
    page = to_markdown(card_page(CARD))
    assert len(card_page(CARD).tables()) == len(card_tables(CARD)) == 8
    for table in card_tables(CARD):
        assert table.caption in page
        assert all("| " + " | ".join(str(value) for value in row) + " |" in page for row in table.rows)


def test_fit_is_kept_and_refit_replaces_it(on_small_data: SessionData, capsys: pytest.CaptureFixture[str]) -> None:
    path = simulator_path(on_small_data, SETTINGS)
    assert SimulatorFit(data="twin").run() == 0 and path.exists()
    assert "Fitted" in capsys.readouterr().out
    before = path.stat().st_mtime_ns
    assert SimulatorFit(data="twin").run() == 0
    assert "Found" in capsys.readouterr().out and path.stat().st_mtime_ns == before
    assert SimulatorFit(data="twin", refit=True).run() == 0
    assert path.stat().st_mtime_ns > before and list(path.parent.iterdir()) == [path]


def test_a_refit_that_fails_loses_nothing(on_small_data: SessionData, monkeypatch: pytest.MonkeyPatch) -> None:
    path = simulator_path(on_small_data, SETTINGS)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the old one")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator_commands, "load_simulator", stop)
    with pytest.raises(KeyboardInterrupt):
        fitted_simulator(on_small_data, SETTINGS, refit=True)
    assert path.read_bytes() == b"the old one"


def test_card_command_prints_and_writes(
    on_small_data: SessionData, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "cards" / "card.md"
    assert SimulatorCardCommand(data="twin", resamples=5, out=out).run() == 0
    printed = capsys.readouterr().out
    assert "user x item" in printed and "twin:" in printed and "long_view" in printed
    page = out.read_text("utf-8")
    assert re.search(r"(^|\n)# .*\.\n\nSimulator card: twin, corrected profile\. ", page) and "| click |" in page
    assert page.startswith("> **Before you read on:** The simulator is not shown") and "Before you read on" in printed
    assert "twin drawn from aggregates of KuaiRand-Pure" in page


def test_the_page_stands_alone_and_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    pytest.importorskip("jinja2")
    path = tmp_path / "pages" / "card.html"
    odd = replace(CARD.selection[2], group="<script>alert(1)</script>")
    write_page(card_page(replace(CARD, selection=(*CARD.selection, odd))), path, Console(file=io.StringIO()))
    page = path.read_text("utf-8")
    assert page.startswith("<!doctype html>") and "Simulator card: kuairand-pure" in page
    assert "ECE 1.21 % [0.60, 1.80], noise floor 0.86 %" in page and "<td>0.5966</td>" not in page and "0.6005" in page
    assert "<script>alert(1)" not in page
    assert "default-src 'none'" in page and 'src="http' not in page and "@import" not in page.split("<script>")[0]


def test_comparison_of_all_predictors(
    on_small_data: SessionData, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("COLUMNS", "140")
    lerl = OfficialSettings(epochs=1, length=8)
    monkeypatch.setattr(simulator_commands, "OfficialSettings", lambda: lerl)
    monkeypatch.setattr(simulator_compare, "FitSettings", lambda: SETTINGS)
    out = tmp_path / "compare.md"
    assert SimulatorCompare(data="twin", seeds=2, resamples=5, lerl=True, out=out).run() == 0
    printed = capsys.readouterr().out
    names = (JOINT, FACTORISATION, GRU, TRANSFORMER, OURS, LERL)
    assert all(name in printed and f"| {name} |" in out.read_text("utf-8") for name in names)
    found = compare_predictors(on_small_data, 2, 5, np.random.default_rng(0), settings=SETTINGS)
    assert found.seeds[OURS] == 2 and found.seeds[JOINT] == 1
    assert ("click", OURS, GRU) in found.differences and ("click", GRU, GRU) not in found.differences
    auc = found.scores["click", OURS][0] - found.scores["click", GRU][0]
    assert found.differences["click", OURS, GRU][0].point == pytest.approx(auc)


@pytest.mark.parametrize("name", ["seeds", "resamples"])
def test_no_comparison_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=0; give at least 1"):
        SimulatorCompare(**{name: 0}).run()  # type: ignore[arg-type]


def test_no_bootstrap_is_refused() -> None:
    with pytest.raises(ValueError, match=r"resamples=0; give at least 1"):
        SimulatorCardCommand(resamples=0).run()


def test_rates_are_of_the_logged_rows() -> None:
    assert CARD.scores[0].rate == pytest.approx(11_552 / 26_607)
    assert CARD.selection[0].simulated_ratio == pytest.approx(0.3842 / 0.4266)
    assert CARD.selection[1].published_ratio is None
    assert np.isclose(CARD.selection[0].published_ratio or 0, 0.1762 / 0.4512)
