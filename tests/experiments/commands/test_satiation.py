"""``rapport satiation measure | inside | separate``: the tables, the files, and who is compared."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from gymnasium.vector import AutoresetMode
from rich.console import Console

from rapport.agents.baselines.oracles import LookAhead, OracleGreedy
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.kuairand.surfaces import surfaces
from rapport.datasets.schema import SessionData
from rapport.datasets.splits import assemble
from rapport.datasets.twin import twin
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.kuairand_satiation import satiation_core
from rapport.envs.session.response.base import MatrixResponse
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.satiation.model import SatiationState
from rapport.envs.session.satiation.parameters import parameters_from, shipped
from rapport.experiments.bench.timing import torch_threads
from rapport.experiments.cli import parse
from rapport.experiments.commands import satiation as satiation_commands
from rapport.experiments.commands.satiation import SatiationInside, SatiationMeasure, SatiationSeparate
from rapport.experiments.core import play
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.lerl.protocol import evaluation_users
from rapport.experiments.report.page import to_markdown
from rapport.experiments.satiation.controls import METHODS, control
from rapport.experiments.satiation.double_count import inside
from rapport.experiments.satiation.exposures import exposures
from rapport.experiments.satiation.panel import Effect
from rapport.experiments.satiation.separation import PLAIN, TIRING, TOLERANCES, row_name, separation
from rapport.experiments.satiation.study import Study, conduct, difference, figures_of
from rapport.experiments.satiation.tables import CAPTIONS, rows_table, study_notes, study_page, study_tables

pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def people() -> SessionData:
    return twin(n_users=150, n_items=120, seed=2)


@pytest.fixture(scope="module")
def study(people: SessionData) -> Study:
    return conduct(people, exposures(people), seconds=21.4, share=0.1, draws=2)


@pytest.fixture
def on_people(people: SessionData, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionData]:
    """The commands find these people and fit them in a moment."""
    monkeypatch.setattr(satiation_commands, "find_data", lambda data, root: people)
    monkeypatch.setattr(satiation_commands, "FitSettings", lambda: FitSettings(epochs=1, length=8))
    with torch_threads(1):
        yield people


def test_every_question_is_answered(study: Study) -> None:
    assert {x.study for x in study.effects} >= set(CAPTIONS)
    assert all(np.isfinite([x.value, x.error]).all() for x in study.effects if x.study == "gap" and x.what == "any gap")
    page = to_markdown(study_page(study))
    assert page.startswith("# When the recent past is full, the click rate changes by ")
    for table in study_tables(study):
        assert page.count(f"\n\n{table.to_markdown()}\n\n") == 1
    assert "20 users" not in page and len(study_notes(study)) == 4
    with pytest.raises(KeyError, match="no effect of 'luck'"):
        study.effect("gap", "luck", "click", "user, video")


def test_figures_are_read_back_as_parameters(study: Study) -> None:
    figures = json.loads(json.dumps(figures_of(study)))
    parameters = parameters_from(figures)
    assert parameters.tau_minutes == study.fade.minutes and parameters.behaviours == ("click", "long_view")
    everything = study.effect("full", "all", "click", "user x tab, video, split halves")
    rate = study.rates[0]
    assert parameters.overall[0] == pytest.approx(max(-everything.value / (rate * (1 - rate)), 0), abs=1e-3)


def test_parts_that_are_alike_and_parts_that_are_not() -> None:
    def parts(values: list[float]) -> list[Effect]:
        return [Effect("category", str(i), "click", "", 100, value, 0.01) for i, value in enumerate(values)]

    alike = difference(parts([0.01, -0.01, 0.0, 0.005]), "category", "click")
    apart = difference(parts([0.2, -0.2, 0.0, 0.1]), "category", "click")
    assert alike.spread == 0 and alike.p_value > 0.2 and alike.mean == pytest.approx(0.00125)
    assert apart.p_value < 1e-6 and apart.spread == pytest.approx(np.std([0.2, -0.2, 0.0, 0.1], ddof=1), rel=0.02)
    assert difference(parts([0.1]), "category", "click").p_value == 1.0


def test_measure_prints_and_writes(on_people: SessionData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / "new" / name for name in ("tables.md", "all.json", "fit.json")}
    command = SatiationMeasure(draws=2, out=files["tables.md"], json=files["all.json"], fit=files["fit.json"])
    assert command.run() == 0
    assert "Same category as the exposure just before" in capsys.readouterr().out
    assert files["tables.md"].read_text("utf-8").split("\n")[2] == "Satiation in twin"
    assert json.loads(files["all.json"].read_text("utf-8"))["effects"][0]["study"] == "gap"
    assert set(json.loads(files["fit.json"].read_text("utf-8"))["behaviours"]) == {"click", "long_view"}


def test_inside_prints_both(on_people: SessionData, capsys: pytest.CaptureFixture[str]) -> None:
    assert SatiationInside(users=20).run() == 0
    printed = capsys.readouterr().out
    assert "inner simulator" in printed and "with satiation" in printed
    assert "predicted" in printed and "left" in printed


def test_users_without_memory_do_not_satiate_inside_and_with_the_component_as_much_as_they_should(
    people: SessionData,
) -> None:
    table = np.full((150, 120, 7), 0.5)
    response = MatrixResponse(table, people.log.behaviours)
    parameters = replace(shipped(), category=(0.4, 0.0), overall=(0.2, 0.0), spread=0.0)
    found = inside(people, response, SatiationState(people, parameters), np.random.default_rng(0), users=60)
    values = {(x.how, x.what): x.value for x in found}
    assert abs(values["inner simulator", "same category"]) < 1e-6
    assert values["with satiation", "same category"] == pytest.approx(-0.1, abs=0.01)  # a quarter of the log-odds
    assert values["with satiation", "all"] == pytest.approx(-0.05, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_plays_whole_sessions_without_repeating(people: SessionData, method: str) -> None:
    with torch_threads(1):
        core = satiation_core(4, data=people, users="held_out")
        act = control(method, core, np.random.default_rng(0))
        shown: list[np.ndarray] = []

        def watched(observations: dict[str, np.ndarray]) -> np.ndarray:
            shown.append(np.asarray(act(observations)))
            return shown[-1]

        env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
        played = play(env, watched, 0, {"user": np.flatnonzero(people.held_out)[:4]})
    assert (played["length"] >= 5).all() and (played["return"] >= 0).all()
    if method != "random":
        first = np.stack(shown[:10], axis=1)[:, : played["length"].min()].reshape(4, -1)
        assert all(len(set(row)) == len(row) for row in first)


def test_methods_separate_into_one_table(people: SessionData, tmp_path: Path) -> None:
    envs = {PLAIN: session_env("kuairand", people), TIRING: session_env("satiation", people).changed(tolerance=0.1)}
    experiment = separation(envs, ("random", "rotation"), 2, 12, tmp_path)
    run_jobs(experiment.jobs(), 1, Console(file=io.StringIO()))
    found = experiment.results()
    table = rows_table(experiment, found, "both")
    assert [row[:2] for row in table.rows] == [(e, m) for e in (PLAIN, TIRING) for m in ("random", "rotation")]
    assert all((row[-1] == "") == (row[1] == "rotation") for row in table.rows)
    lengths = {row.family: found[row.name][0].arrays["length"].mean() for row in experiment.rows}
    assert 10 <= lengths[PLAIN] <= 20
    # The slow reference: the engine made by hand, the same users and chance.
    with torch_threads(1):
        core = kuairand_core(12, data=people, users="held_out")
        act = control("rotation", core, np.random.default_rng([1, 2]))
        users = evaluation_users(people, 12, 1)
        played = play(SessionVectorEnv(core, AutoresetMode.SAME_STEP), act, 1, {"user": users})
    kept = found[row_name(PLAIN, "rotation")][1]
    np.testing.assert_array_equal(kept.arrays["length"], played["length"])
    np.testing.assert_array_equal(kept.arrays["return"], played["return"])


def test_separate_prints_writes_and_goes_on(
    on_people: SessionData,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(satiation_commands, "METHODS", ("random", "rotation"))
    monkeypatch.setattr(satiation_commands, "SENSITIVITY_METHODS", ("rotation",))
    monkeypatch.setattr(
        satiation_commands,
        "both_environments",
        lambda data, root: {PLAIN: session_env("kuairand", on_people), TIRING: session_env("satiation", on_people)},
    )
    base = session_env("satiation", on_people)
    varied = {f"tolerance {t:g}": base.changed(tolerance=t) for t in TOLERANCES[-1:]}
    varied["strength high"] = base.changed(strength="high")
    monkeypatch.setattr(satiation_commands, "varied_environments", lambda data, root: varied)
    out, folder = tmp_path / "tables.md", tmp_path / "run"
    command = SatiationSeparate(sessions=5, seeds=2, sensitivity=1, out=out, folder=folder, workers=1)
    assert command.run() == 0
    assert "rotation" in capsys.readouterr().out
    page = out.read_text("utf-8")
    assert "| tolerance inf | rotation |" in page and "| strength high | rotation |" in page
    kept = {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    assert len(kept) == 2 * 4 + 2
    assert command.run() == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()} == kept
    assert out.read_text("utf-8") == page


def test_oracles_need_a_simulator_they_can_read(people: SessionData) -> None:
    table = MatrixResponse(np.full((150, 120, 7), 0.5), people.log.behaviours)
    core = kuairand_core(2, data=people, response=table)
    core.begin(np.arange(2))
    for oracle in (OracleGreedy(core), LookAhead(core)):
        assert oracle(core.observation()).shape == (2, 6)
    core.response = object()  # type: ignore[assignment]
    for oracle in (OracleGreedy(core), LookAhead(core)):
        with pytest.raises(TypeError, match=r"object has no click_scores\(state, users\), which an oracle reads; add"):
            oracle(core.observation())
    with pytest.raises(ValueError, match="method='luck' is unknown; choose one of random"):
        control("luck", core, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SatiationMeasure(draws=1), "draws=1; give at least 2"),
        (SatiationMeasure(logged_share=0.0), r"logged_share=0.0; it must lie in \(0, 1\]"),
        (SatiationSeparate(sessions=0), "sessions=0; give at least 1"),
        (SatiationInside(users=1), "users=1; give at least 2"),
    ],
)
def test_what_cannot_be_done_is_refused(command: SatiationMeasure, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.run()


def test_the_commands_are_on_the_command_line() -> None:
    assert isinstance(parse(["satiation", "measure", "--data", "twin"]), SatiationMeasure)
    assert isinstance(parse(["satiation", "inside"]), SatiationInside)
    assert isinstance(parse(["satiation", "separate", "--seeds", "2"]), SatiationSeparate)


def test_tabs_join_the_log_row_by_row(kuairand_files: ModuleType, tmp_path: Path) -> None:
    folder: Path = kuairand_files.write_kuairand(tmp_path)
    path = folder / kuairand.STANDARD_LOGS[1]
    frame = pd.read_csv(path)
    frame["tab"] = np.arange(len(frame)) % 5
    frame["play_time_ms"] = 3_000
    frame.to_csv(path, index=False)
    data = assemble("kuairand-pure", kuairand.read(tmp_path))
    beside = surfaces(data, tmp_path)
    assert beside is not None
    wanted = frame.set_index(["user_id", "video_id", "time_ms"])["tab"]
    log = data.log
    for row in np.flatnonzero(np.isin(log.time_ms, frame["time_ms"]))[::37]:
        key = (data.population.user_ids[log.user[row]], data.catalog.item_ids[log.item[row]], log.time_ms[row])
        assert beside.tab[row] == wanted[key]
    assert surfaces(replace(data, name="other"), tmp_path) is None
