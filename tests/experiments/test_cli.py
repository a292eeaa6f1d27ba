"""The command line: every command is there, bad input is one clear line, and the run works from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rapport.experiments.commands.run as runs
from rapport.agents.planning.build import TOP_K_PREFERENCE
from rapport.datasets.schema import DataError
from rapport.experiments.cli import main, parse
from rapport.experiments.commands.run import Run
from rapport.experiments.lerl.environments import sessions_of
from rapport.experiments.results.store import ResultStore


@pytest.fixture
def quick_low_level(monkeypatch, small, twin_env):
    """Runs learn with a small low level: 40 transitions in a rollout."""
    sessions_of(twin_env, 1, "train")  # the simulator is fitted beforehand, on one thread
    monkeypatch.setattr(runs, "PPOConfig", lambda: small)


def test_every_command_is_there():
    for argv in (
        ["run", "--quick"],
        ["evaluate", "x.safetensors"],
        ["data", "list"],
        ["data", "fetch", "kuairand-pure"],
        ["data", "check"],
        ["simulator", "fit"],
        ["simulator", "card"],
        ["transcript", "show", "run.transcript"],
        ["twin", "measure", "--name", "kuairand-pure"],
        ["export", "minari"],
        ["bench", "environment"],
        ["bench", "training"],
    ):
        assert callable(parse(argv).run)


def test_help_and_unknown_commands_exit_with_usage(capsys):
    with pytest.raises(SystemExit) as left:
        parse(["--help"])
    assert left.value.code == 0
    assert "evaluate" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        parse(["fly"])
    assert left.value.code == 2


def run(tmp_path, *more):
    argv = ["run", "--data", "twin", "--seeds", "1", "--transitions", "80", "--sessions", "30", "--workers", "1"]
    planner = () if "--llm" in more else ("--llm", "none")
    return main([*argv, "--out", str(tmp_path / "run"), *planner, *more])


def found(tmp_path):
    """Results of the newest run, by row."""
    newest = sorted((tmp_path / "run" / "results").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    store = ResultStore(tmp_path / "run" / "results")
    keys = [path.stem.rpartition("-")[::2] for path in newest]
    return {row: store.load(row, 0, key) for name, key in keys if (row := name.removesuffix("-seed0"))}


def test_a_run_leaves_table_report_curves_and_a_checkpoint_that_evaluate_plays(tmp_path, quick_low_level, capsys):
    assert run(tmp_path) == 0
    printed = capsys.readouterr().out
    assert "planner: top-k preference planner (no LLM given)" in printed
    for row in ("LERL", "PPO, no planner", "rotation planner", "random", "popularity", "oracle"):
        assert row in printed
    folder = tmp_path / "run"
    markdown = (folder / "report.md").read_text()
    assert "T_int" in markdown and "planner: top-k preference planner (no LLM given)" in markdown
    assert "| click | 45.00 % | user model |" in markdown  # the simulator's card
    assert "<html" in (folder / "report.html").read_text()
    assert list((folder / "tensorboard").rglob("events.out.*"))

    checkpoint = folder / "checkpoints" / "lerl-seed0.safetensors"
    assert main(["evaluate", str(checkpoint), "--data", "twin", "--sessions", "30", "--seeds", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "R_cum, summed click rate" in printed
    assert f"planner: {TOP_K_PREFERENCE} (no LLM given)" in printed

    # Evaluation draws the same people and the same chance as the run did.
    (result,) = [r for r in ResultStore(folder / "results").load_all() if r.row == "lerl"]
    assert main(["evaluate", str(checkpoint), "--data", "twin", "--sessions", "30", "--seeds", "1"]) == 0
    assert f"{result.arrays['return'].mean():.3f}" in capsys.readouterr().out


def test_a_second_run_computes_nothing_again(tmp_path, quick_low_level, monkeypatch):
    assert run(tmp_path) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "results").iterdir()}
    for again in (
        "experiments.lerl.learners.train",
        "experiments.lerl.learners.control",
        "experiments.lerl.protocol.play",
        "agents.lerl.warm_start",
    ):
        monkeypatch.setattr(f"rapport.{again}", lambda *_, **__: pytest.fail("done again"))
    assert run(tmp_path) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "results").iterdir()} == before


def test_a_checkpoint_of_another_environment_is_refused(tmp_path, quick_low_level, capsys, monkeypatch, kuairand_files):
    assert run(tmp_path) == 0
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(kuairand_files.write_kuairand(tmp_path / "data").parent.parent))
    checkpoint = str(tmp_path / "run" / "checkpoints" / "ppo-seed0.safetensors")
    capsys.readouterr()
    assert main(["evaluate", checkpoint, "--data", "kuairand-pure"]) == 2
    message = capsys.readouterr().err
    assert "made with dataset=twin, but here dataset=kuairand-pure" in message
    assert "use the data and settings it was trained with, or train anew" in message


def test_a_file_that_is_no_checkpoint_is_refused_and_not_executed(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    import pickle

    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(pickle.dumps(Trap()))
    assert main(["evaluate", str(bad)]) == 2
    assert "damaged or not written by Rapport" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    assert main(["evaluate", str(tmp_path / "absent.safetensors")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    for name in ("seeds", "sessions"):
        assert main(["evaluate", str(bad), f"--{name}", "0"]) == 2
        assert f"--{name} 0: it must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--llm", "nothing.gguf"], "nothing.gguf"),
        (["--llm", "llama3"], "cannot tell what language model 'llama3' is: give smollm2, embedded, a file that"),
        (["--llm", "http://127.0.0.1:9/v1"], "127.0.0.1:9"),
        (["--seeds", "-1"], "--seeds -1: it must be at least 1"),
        (["--seeds", "0"], "--seeds 0: it must be at least 1"),
        (["--plan-period", "0"], "--plan-period 0: it must be at least 1"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, more, message, capsys, quick_low_level):
    assert run(tmp_path, *more) == 2
    assert message in capsys.readouterr().err


def test_without_data_and_network_the_run_says_so_and_uses_the_twin(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(tmp_path / "nothing"))

    def offline(*_, **__):
        raise DataError("zenodo.org cannot be reached")

    monkeypatch.setattr(runs, "fetch", offline)
    console = runs.Console()
    assert runs.find_run_data("auto", None, console) == "twin"
    printed = capsys.readouterr().out
    assert "It could not be fetched: zenodo.org cannot be reached" in printed
    assert "Using its statistical twin" in printed


@pytest.mark.slow
def test_the_embedded_model_plans_unless_told_otherwise(tmp_path, quick_low_level, capsys):
    assert run(tmp_path, "--llm", "embedded") == 0
    printed = capsys.readouterr().out
    assert "planner: LLM embedded" in printed
    results = found(tmp_path)
    for row in ("lerl", "no-reflection", "lerl-no-rl"):
        meter = results[row].meter
        answers = meter["calls"] + meter["cache_hits"]  # rows that ask the same share the cache
        assert answers > 0
        assert meter["failures"] == 0
        assert meter["fallbacks"] < 0.1 * answers
    assert Run().llm == "embedded"


@pytest.mark.slow
def test_a_run_planned_by_a_real_gguf_model(tmp_path, quick_low_level, tiny_gguf, capsys):
    """The whole hierarchy with llama.cpp in it: plans, reflections, meter; then a budget that runs out."""
    assert run(tmp_path, "--llm", str(tiny_gguf), "--plan-period", "10", "--llm-seconds", "60") == 0
    printed = capsys.readouterr().out
    assert f"planner: LLM {tiny_gguf.name}" in printed
    assert "no LLM given" not in printed
    results = found(tmp_path)
    assert results["lerl"].meter["calls"] > 0
    assert results["lerl"].meter["prompt_tokens"] > 0
    assert results["lerl-top-k"].meter["calls"] == 0
    assert (tmp_path / "run" / "reflections-lerl-seed0.sqlite").exists()

    assert run(tmp_path, "--llm", str(tiny_gguf), "--plan-period", "1", "--llm-seconds", "0.05") == 0
    results = found(tmp_path)
    assert results["lerl"].meter["fallbacks"] > 0


@pytest.mark.slow
def test_a_run_planned_by_a_server_that_goes_away_in_the_middle_is_finished(tmp_path, quick_low_level, serve, answer):
    """Good answers, then nonsense, then silence: all counted, and the run ends with its table."""

    def reply(request):
        told = str(request)
        server.plans += 1
        server.reflections += "has ended" in told
        if server.reflections > 2:  # only training is looked back on
            return 503, {"error": {"message": "gone"}}
        if server.plans % 5 == 0:
            return answer("I would rather not say.")
        if "has ended" in told:
            return answer(json.dumps({"reflection": "Variety kept this user."}))
        return answer(json.dumps({"categories": ["Dance", "Music", "Gaming"]}))

    server = serve(reply)
    server.plans = server.reflections = 0
    assert run(tmp_path, "--llm", server.url, "--plan-period", "5") == 0
    results = found(tmp_path)
    meter = results["lerl"].meter
    assert meter["calls"] > 0
    assert meter["prompt_tokens"] > 0
    assert meter["retries"] > 0
    assert meter["fallbacks"] > 0
    assert set(results) >= {"lerl", "no-reflection", "lerl-top-k", "ppo", "lerl-rotation", "oracle"}


@pytest.mark.slow
def test_workers_make_the_same_results_as_one_process(tmp_path):
    """Needs the real sizes: settings travel to the workers, test doubles do not."""
    numbers = {"seeds": 2, "transitions": 1, "sessions": 20}
    for workers in (1, 2):
        assert Run(data="twin", out=tmp_path / str(workers), workers=workers, **numbers).run() == 0
    for name in sorted(p.name for p in (tmp_path / "1" / "results").glob("*.json")):
        one, two = (json.loads((tmp_path / w / "results" / name).read_text())["result"] for w in ("1", "2"))
        assert one["arrays"] == two["arrays"] and one["ids"] == two["ids"], name


def test_an_argument_that_would_confuse_a_terminal_is_refused_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["transcript", "\u202eevil"])
    said = capsys.readouterr().err
    assert "U+202E" in said and "\u202e" not in said
