"""``rapport.evaluate`` and ``rapport.compare``: the runner's figures, and a file that others can check."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rapport
import rapport.experiments.compare as comparing
from rapport.agents.baselines.controls import PopularSlates
from rapport.envs.session.engine.quit_rules import Never
from rapport.experiments.compare import Comparison
from rapport.experiments.core import EnvConfig, Experiment
from rapport.experiments.core.experiment import measure
from rapport.experiments.core.own_code import OwnCodeError
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.lerl.metrics import R_CUM
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import RowSettings, lerl_row
from rapport.experiments.results.store import ResultError
from rapport.experiments.results.summary import compare as paired

KUAIREC: Any = {"data": "synthetic", "sessions": 20, "seeds": 2}


class Popular(PopularSlates):
    def __init__(self, env: Any, data: Any, seed: int) -> None:
        super().__init__(data, 6)


def drawn(observations: Any) -> Any:
    """The same for everybody, another one every step."""
    rng = np.random.default_rng(int(observations["step"].max()))
    return np.tile(rng.choice(500, 6, replace=False), (len(observations["step"]), 1))


@pytest.fixture(scope="module")
def compared() -> Comparison:
    agents = {"mine": Popular, "drawn": drawn, "popularity": "popularity", "bound": "oracle-greedy"}
    return rapport.compare(agents, "rapport/KuaiRec-v0", **KUAIREC)


def test_a_row_by_its_name_has_the_runners_figures(compared: Comparison, tmp_path: Path) -> None:
    env = session_env("kuairec", "synthetic")
    assert compared.env == env
    for shown, name in {"popularity": "popularity", "bound": "oracle"}.items():
        row = lerl_row(name, env, RowSettings())
        experiment = Experiment((row,), 2, HeldOutSessions(20), tmp_path)
        for seed in range(2):
            expected = measure(experiment, row, seed)
            found = compared.results[shown][seed]
            np.testing.assert_array_equal(found.ids, expected.ids)
            for array, values in expected.arrays.items():
                np.testing.assert_array_equal(found.arrays[array], values)


def test_the_table_has_intervals_and_paired_differences(compared: Comparison) -> None:
    printed = str(compared)
    assert repr(compared) == printed and "reference" in printed and "200 held-out users" in printed
    frame = compared.to_frame()
    assert list(frame.index) == ["mine", "drawn", "popularity", "bound"]
    assert frame.loc["mine", "R_cum"] == frame.loc["popularity", "R_cum"]
    assert (frame["T_int_low"] <= frame["T_int"]).all() and (frame["T_int"] <= frame["T_int_high"]).all()
    assert frame.loc["popularity", ["difference", "difference_low", "difference_high"]].tolist() == [0.0, 0.0, 0.0]
    other = paired(compared.results["mine"], compared.results["bound"], R_CUM)
    assert other is not None
    found = [-frame.loc["bound", f"difference{end}"] for end in ("", "_high", "_low")]
    assert found == pytest.approx([other.point, other.low, other.high])
    # Pairing by person: the difference of two equal agents has no width, each of them has.
    assert frame.loc["mine", "R_cum_high"] - frame.loc["mine", "R_cum_low"] > 0.1


def test_one_agent_alone_is_a_table_of_one_row() -> None:
    found = rapport.evaluate(drawn, "rapport/KuaiRec-v0", **KUAIREC)
    assert list(found.results) == ["drawn"] and "difference" not in found.to_frame()
    assert "difference" not in str(found).partition("\n\n")[0]


def test_variants_and_configurations_are_environments_too() -> None:
    items = rapport.compare({"p": "popularity", "o": "oracle"}, "rapport/KuaiRecItem-v0", **KUAIREC)
    assert items.results["p"][0].episodes == 20 and items.env.data["dataset"] == "kuairec-synthetic"
    config = EnvConfig("rapport/KuaiRec-v0", {"quit_rule": "never", "max_steps": 5}, {"data": "synthetic"})
    found = rapport.evaluate("popularity", config, sessions=4, seeds=1, slate_size=3)
    assert found.results["popularity"][0].arrays["length"].tolist() == [5] * 4
    other = rapport.evaluate("popularity", config, sessions=4, seeds=1, data="synthetic", budget=3)
    assert other.env.local == {"data": "synthetic"} and other.env.kwargs["budget"] == 3
    with pytest.raises(TypeError, match=r"env: a SessionEnv; give the id of an environment and its arguments"):
        rapport.evaluate("random", gym.make("rapport/KuaiRec-v0", data="synthetic").unwrapped)
    with pytest.raises(TypeError, match=r"env='CartPole-v1': an environment of sessions is expected"):
        rapport.evaluate("random", "CartPole-v1")
    with pytest.raises(ValueError, match=r"'ppo' serves slates, and an action of rapport/KuaiRecItem-v0 is one item"):
        rapport.evaluate("ppo", "rapport/KuaiRecItem-v0", **KUAIREC)


def test_a_row_that_learns_can_be_named(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(comparing, "RowSettings", lambda *a, **k: RowSettings(*a, **k, base=small))
    sizes: dict[str, Any] = {**KUAIREC, "transitions": 40, "sessions": 4, "folder": tmp_path}
    found = rapport.compare({"ppo": "lerl", "planned": "lerl-rotation"}, "rapport/KuaiRec-v0", **sizes)
    assert [result.steps for result in found.results["ppo"]] == [40, 40]
    assert (found.results["planned"][0].arrays["length"] == 20).all()
    assert (tmp_path / "checkpoints" / "lerl-seed1.safetensors").exists()


@pytest.mark.parametrize(
    ("agents", "env", "arguments", "error", "message"),
    [
        ({}, "rapport/KuaiRec-v0", {}, ValueError, "agents: there are none"),
        ({"x": "popular"}, "rapport/KuaiRec-v0", {}, ValueError, "'popular' is no row that plays without a language"),
        ({"x": "billp"}, "rapport/KuaiRec-v0", {}, ValueError, "'billp' is no row that plays without a language"),
        ({3: "random"}, "rapport/KuaiRec-v0", {}, ValueError, "the name 3 is no text"),
        ({"a": "oracle", "b": "oracle-greedy"}, "rapport/KuaiRec-v0", {}, ValueError, "two are the row 'oracle'"),
        ({"x": 3}, "rapport/KuaiRec-v0", {}, OwnCodeError, "x: this int has no __call__(observations)"),
        ({"x": lambda seen: 3}, "rapport/KuaiRec-v0", {}, OwnCodeError, "x: it returned an array of shape ()"),
        ({"x": "nowhere.py:A"}, "rapport/KuaiRec-v0", {}, OwnCodeError, "there is no file"),
        (
            {"x": "random"},
            "rapport/KuaiRec-v0",
            {"sessions": 0},
            ValueError,
            "sessions=0; a whole number",
        ),
        ({"x": "random"}, "rapport/KuaiRec-v0", {"seeds": 1.5}, ValueError, "seeds=1.5; a whole number"),
        (
            {"x": "random"},
            "rapport/KuaiRec-v0",
            {"reference": "y"},
            ValueError,
            "reference='y': there is no such",
        ),
        ({"x": "random"}, "rapport/KuaiRec-v0", {"users": "all"}, ValueError, "users: leave it out"),
        ({"x": "random"}, "rapport/KuaiRec-v0", {"budgte": 3}, TypeError, "unknown argument 'budgte'; use budget"),
        ({"x": "random"}, "rapport/Nothing-v0", {}, gym.error.NameNotFound, "Nothing"),
    ],
)
def test_bad_input_is_one_sentence(agents: Any, env: Any, arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        rapport.compare(agents, env, **{"data": "synthetic", **arguments})


def test_a_file_of_results_is_checked_by_playing_it_again(compared: Comparison, tmp_path: Path) -> None:
    path = compared.save(tmp_path / "found.json")
    assert str(tmp_path) not in path.read_text()
    check = rapport.check_results(path, agents={"mine": Popular, "drawn": drawn})
    assert check and check.equal and len(check.compared) == 4 and str(check).startswith("Equal to the last digit.")
    other = rapport.check_results(path, agents={"mine": drawn, "drawn": drawn})
    assert not other and all(line.startswith("mine, seed ") for line in other.differences)
    assert "return by up to" in str(other)
    alone = rapport.check_results(path)
    assert [line.partition(":")[0] for line in alone.differences] == ["mine", "drawn"] and len(alone.compared) == 2
    with pytest.raises(ValueError, match=r"agents: 'him' is not in .*; it has 'mine', 'drawn', 'popularity', 'bound'"):
        rapport.check_results(path, agents={"him": drawn})


def test_the_code_of_an_agent_is_told_apart(tmp_path: Path) -> None:
    text = "import numpy as np\ndef act(seen):\n    return np.tile(np.arange(6), (len(seen['step']), 1))\n"
    (tmp_path / "my.py").write_text(text)
    given = f"{tmp_path / 'my.py'}:act"
    path = rapport.evaluate(given, "rapport/KuaiRec-v0", **KUAIREC).save(tmp_path / "found.json")
    assert str(tmp_path) not in path.read_text().replace(json.dumps(given), "")
    assert rapport.check_results(path, agents={given: given})
    (tmp_path / "my.py").write_text(text + "# edited\n")
    (line,) = rapport.check_results(path, agents={given: given}).differences
    assert "the file is of my.py:act with digest" in line


def test_what_a_file_cannot_hold_is_given_when_it_is_checked(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": "synthetic", "quit_rule": Never(), "max_steps": 3}
    path = rapport.evaluate("popularity", "rapport/KuaiRec-v0", sessions=4, seeds=1, **options).save(
        tmp_path / "f.json"
    )
    with pytest.raises(ResultError, match=r"give the argument quit_rule=..., which the file does not hold: .*'Never'"):
        rapport.check_results(path)
    assert rapport.check_results(path, quit_rule=Never())
    assert not rapport.check_results(path, quit_rule="never", max_steps=2)


def edited(path: Path, change: Any, seal: bool = True) -> Path:
    body = json.loads(path.read_text())
    change(body)
    if seal:
        del body["sha256"]
        body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    other = path.with_name("edited.json")
    other.write_text(json.dumps(body))
    return other


def test_a_figure_that_was_changed_is_found(compared: Comparison, tmp_path: Path) -> None:
    path = compared.save(tmp_path / "found.json")

    def change(body: Any) -> None:
        body["agents"]["bound"]["results"][1]["arrays"]["return"][3] += 1e-9

    with pytest.raises(ResultError, match=r"edited.json: damaged or edited: its checksum does not match"):
        rapport.check_results(edited(path, change, seal=False))
    check = rapport.check_results(edited(path, change), agents={"mine": Popular, "drawn": drawn})
    assert check.differences == ("bound, seed 1: sessions differ: return by up to 1e-09",)

    def other_data(body: Any) -> None:
        body["environment"]["data"]["fingerprint"] = "0" * 64

    assert "data: the file is of fingerprint 0000" in str(rapport.check_results(edited(path, other_data)))
    newer = edited(path, lambda body: body["protocol"].update(version=2))
    assert rapport.check_results(newer).differences == ("protocol: version 2, here 1; figures of the two differ",)
    other_torch = edited(path, lambda body: body["made_with"].update(torch="0.1"))
    assert "made with torch 0.1, here " in str(rapport.check_results(other_torch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.update(version=9), "'rapport results', version 9; 'rapport results', version 1 is expected"),
        (lambda body: body.pop("users"), "no file of results (KeyError: 'users')"),
        (lambda body: body["protocol"].update(seeds="x"), "no file of results (ValueError"),
        (lambda body: body["agents"]["bound"].update(agent="evil.py:Agent"), "there is no row 'evil.py:Agent'"),
        (lambda body: body["environment"].update(id="evil:Env-v0"), "the id 'evil:Env-v0' names a module to import"),
        (lambda body: body["environment"]["arguments"].update(reward="a.py:f"), "give the argument reward=..."),
        (lambda body: body["environment"]["arguments"].update(response={"object": "R"}), "give the argument response"),
    ],
)
def test_a_file_executes_no_code_and_is_refused_where_it_is_damaged(
    compared: Comparison, tmp_path: Path, change: Any, message: str
) -> None:
    path = compared.save(tmp_path / "found.json")
    with pytest.raises(ResultError, match=re.escape(message)):
        rapport.check_results(edited(path, change))
    for text, said in (("", "no file of results"), ("[]", "no file of results"), ("{" * 9, "no file of results")):
        path.write_text(text)
        with pytest.raises(ResultError, match=said):
            rapport.check_results(path)
    with pytest.raises(ResultError, match=r"none.json: No such file or directory; give a file that Comparison.save"):
        rapport.check_results(tmp_path / "none.json")


JUNK: tuple[Any, ...] = (None, -1, 0, 1.5, "x", "", [], {}, [1], True, 10**30, 1e300, "a:b", [[1]], {"object": "x"})


def places(part: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and indices that lead to every part of a document."""
    for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
        yield (*above, key)
        yield from places(part[key], (*above, key))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_stands_in_a_file_ends_in_a_check_or_in_one_sentence(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = rapport.evaluate("popularity", "rapport/KuaiRec-v0", data="synthetic", sessions=3, seeds=1).save(
        tmp_path / "found.json"
    )
    everywhere = list(places({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    for _ in range(40):
        *above, last = everywhere[rng.integers(len(everywhere))]
        value = JUNK[rng.integers(len(JUNK))]

        def change(body: Any, above: Any = above, last: Any = last, value: Any = value) -> None:
            for key in above:
                body = body[key]
            body[last] = value

        try:
            assert isinstance(rapport.check_results(edited(path, change)).equal, bool)
        except ResultError as error:
            assert str(error)


def test_pages_are_written_by_their_ending(compared: Comparison, tmp_path: Path) -> None:
    assert "How to read it" in compared.save(tmp_path / "new" / "page.md").read_text()
    pytest.importorskip("plotly")
    assert "<html" in compared.save(tmp_path / "page.html").read_text()
    with pytest.raises(ValueError, match=r"page.csv: the name of the file must end in one of .json, .html, .md"):
        compared.save(tmp_path / "page.csv")


def test_importing_the_package_does_not_import_what_compares() -> None:
    program = "import sys, rapport; dir(rapport); print([n for n in sys.modules if n.startswith('rapport.exp')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
