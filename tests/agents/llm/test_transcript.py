"""What was recorded is played again exactly: answers, failures, repeats, what was not sent, and what it all cost."""

from __future__ import annotations

import itertools
import json
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.llm import (
    LLM,
    Budget,
    CachedLLM,
    Completion,
    RecordedLLM,
    ReplayLLM,
    Sampling,
    ScriptedLLM,
    complete_json,
    conversation,
    open_llm,
)
from rapport.agents.llm.transcript import read_batches, seal

SCHEMA = {"type": "object"}
Asked = list[list[str]]


def moody() -> Callable[[str], Completion]:
    """Answers otherwise each time, and every third time not at all."""
    turns = itertools.count(1)

    def answer(prompt: str) -> Completion:
        turn = next(turns)
        if turn % 3 == 0:
            raise TimeoutError(f"turn {turn}")
        return Completion(f"{prompt} {turn}" if turn % 4 else "", len(prompt), 2, logprobs=(-1 / turn, -0.1))

    return answer


def even(value: object) -> int:
    if not isinstance(value, int) or value % 2:
        raise ValueError("it must be even")
    return value


def ask(llm: LLM, batches: Asked, **options: Any) -> list[list[Completion]]:
    return [llm.complete(batch, **options) for batch in batches]


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(st.lists(st.sampled_from(["a", "b", "c", "\ud800", ""]), max_size=5), min_size=1, max_size=8),
    cached=st.booleans(),
    calls=st.sampled_from([None, 0, 3]),
    tokens=st.sampled_from([None, 4]),
    options=st.sampled_from([{}, {"n": 3}, {"system": "s"}, {"system": "s", "n": 2, "logprobs": True}]),
)
def test_a_replay_gives_the_same_completions_and_the_same_meter(
    tmp_path_factory: pytest.TempPathFactory,
    batches: Asked,
    cached: bool,
    calls: int | None,
    tokens: int | None,
    options: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("transcript")
    model: LLM = ScriptedLLM(moody(), budget=Budget(calls, tokens), sampling=Sampling(seed=7), identity="moody")
    if cached:
        model = CachedLLM(model, folder / "cache.sqlite")
    recorded = RecordedLLM(model, folder / "t.sqlite")
    with conversation(recorded, "talk"):
        said = ask(recorded, batches, **options)
    replay = ReplayLLM(folder / "t.sqlite")
    with conversation(replay, "talk"):
        assert ask(replay, batches, **options) == said
    assert replay.meter == recorded.meter  # its seconds too
    assert replay.meter.exhausted == recorded.meter.exhausted
    assert (replay.identity, replay.sampling) == ("moody", Sampling(seed=7))


def test_retries_for_unusable_answers_are_played_too(tmp_path: Path) -> None:
    script = ["3", "4", "nothing", "5", TimeoutError("late"), "6"]
    recorded = RecordedLLM(ScriptedLLM(script), tmp_path / "t.sqlite")
    results = complete_json(recorded, ["p", "q", "r"], SCHEMA, even)
    recorded.close()
    replay = open_llm(f"replay:{tmp_path / 't.sqlite'}")
    assert complete_json(replay, ["p", "q", "r"], SCHEMA, even) == results == [6, 4, None]
    assert replay.meter == recorded.meter
    assert replay.meter.retries == 3 and replay.meter.failures == 1


def test_what_was_not_sent_for_want_of_time_is_not_answered_now(tmp_path: Path) -> None:
    recorded = RecordedLLM(ScriptedLLM(str.upper, budget=Budget(seconds=0.0)), tmp_path / "t.sqlite")
    assert not recorded.complete(["a"])[0].sent
    recorded.close()
    replay = ReplayLLM(tmp_path / "t.sqlite")
    assert replay.complete(["a"])[0].error == "not sent: the budget of 0 seconds is spent"
    assert replay.meter.exhausted == "the budget of 0 seconds is spent"


def test_a_conversation_begun_again_replaces_what_was_written_of_it(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    for turn in ("first", "second"):
        recorded = RecordedLLM(ScriptedLLM(lambda prompt, turn=turn: turn), path)
        with conversation(recorded, "segment"):
            ask(recorded, [["a"], ["b"]])
        with conversation(recorded, turn):
            ask(recorded, [["a"]])
    replay = ReplayLLM(path)
    for name, texts in (("segment", ["second", "second", ""]), ("first", ["first", "", ""])):
        with conversation(replay, name):
            answers = [replay.complete([prompt])[0] for prompt in ("a", "b", "a")]
        assert [answer.text for answer in answers] == texts, name
    with conversation(replay, "segment"):  # and so does a replay
        assert replay.complete(["a"])[0].text == "second"


def test_a_prompt_that_is_not_there_is_a_counted_error_that_names_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = RecordedLLM(ScriptedLLM(str.upper), tmp_path / "t.sqlite")
    with conversation(recorded, "talk"):
        recorded.complete(["a"], SCHEMA, 9)
    replay = ReplayLLM(tmp_path / "t.sqlite")
    with conversation(replay, "talk"):
        answers = [
            *replay.complete(["b", "c"], SCHEMA, 9),
            *replay.complete(["a"], SCHEMA, 10),
            *replay.complete(["a"]),
        ]
        assert all("not in the transcript" in str(a.error) and "'talk'" in str(a.error) for a in answers)
        assert all("record it with --llm-record" in str(a.error) and not a.sent for a in answers)
        assert replay.complete(["a"], SCHEMA, 9)[0].text == "A"
    assert (replay.meter.failures, replay.meter.calls) == (4, 1)
    assert caplog.text.count("a prompt is not in the transcript") == 1


def test_a_sealed_transcript_is_one_file_that_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    recorded = RecordedLLM(ScriptedLLM(str.upper), tmp_path / "t.sqlite")
    with conversation(recorded, "talk"):
        recorded.complete(["a"])
    seal(tmp_path / "t.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["t.sqlite"]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "t.sqlite").write_bytes((tmp_path / "t.sqlite").read_bytes())
    folder.chmod(0o555)
    try:
        assert [batch.prompts for batch in read_batches(folder / "t.sqlite")] == [["a"]]
        assert [path.name for path in folder.iterdir()] == ["t.sqlite"]
    finally:
        folder.chmod(0o755)


def test_files_that_are_no_transcript_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no transcript .*t\.sqlite: .*--llm-record"):
        open_llm(f"replay:{tmp_path / 't.sqlite'}")
    RecordedLLM(ScriptedLLM([]), tmp_path / "empty.sqlite")
    with pytest.raises(ValueError, match=r"empty\.sqlite is empty: record a run"):
        ReplayLLM(tmp_path / "empty.sqlite")
    (tmp_path / "t.sqlite").write_bytes(b"nothing of the kind" * 99)
    with pytest.raises(ValueError, match=r"t\.sqlite cannot be read .*damaged or no transcript"):
        ReplayLLM(tmp_path / "t.sqlite")
    assert (tmp_path / "t.sqlite").read_bytes().startswith(b"nothing")


def test_a_transcript_damaged_in_its_middle_answers_what_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.sqlite"
    recorded = RecordedLLM(ScriptedLLM(str.upper), path)
    with conversation(recorded, "talk"):
        ask(recorded, [[f"p{n} {'x' * 50}"] for n in range(300)])
    seal(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xa5" * (len(data) - len(data) // 2))
    replay = ReplayLLM(path)
    with conversation(replay, "talk"):
        answers = [replay.complete([f"p{n} {'x' * 50}"])[0] for n in range(300)]
    answered = sum(answer.error is None for answer in answers)
    assert replay.meter.failures == 300 - answered > 0
    assert all(answer.text.startswith("P") for answer in answers if answer.error is None)
    assert "cannot be read" in caplog.text


def test_a_transcript_without_the_later_arguments_is_what_it_was(tmp_path: Path) -> None:
    """The content of a batch, and a file in that form that a replay reads."""
    recorded = RecordedLLM(ScriptedLLM(str.upper), tmp_path / "t.sqlite")
    recorded.complete(["a"], SCHEMA, 9)
    recorded.close()
    with sqlite3.connect(tmp_path / "t.sqlite") as db:
        ((content,),) = db.execute("SELECT content FROM batches").fetchall()
    answer = {"text": "A", "prompt_tokens": 1, "completion_tokens": 1, "cached": False, "error": None, "sent": True}
    found = json.loads(zlib.decompress(content))
    assert found["answers"] == [answer] and found["prompts"] == ["a"]
    sampling = {"temperature": 0.8, "top_p": 0.9, "seed": 0}
    assert found["settings"] == {"model": "scripted", "sampling": sampling, "schema": SCHEMA, "max_tokens": 9}
    assert ReplayLLM(tmp_path / "t.sqlite").complete(["a"], SCHEMA, 9) == [Completion(**answer)]


def test_other_arguments_than_the_recorded_ones_are_not_answered(tmp_path: Path) -> None:
    recorded = RecordedLLM(ScriptedLLM(moody()), tmp_path / "t.sqlite")
    recorded.complete(["a"], system="s")
    recorded.close()
    replay = ReplayLLM(tmp_path / "t.sqlite")
    for options in ({}, {"system": "t"}, {"system": "s", "logprobs": True}):
        assert "not in the transcript" in str(replay.complete(["a"], **options)[0].error)
    assert [a.sent for a in replay.complete(["a"], system="s", n=2)] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": []},
        {"settings": {"model": 7, "sampling": {}}},
        {"settings": {"model": "m", "sampling": {"temperature": "hot"}}},
        {"settings": {"model": "m", "sampling": {"heat": 1}}},
        {"prompts": [7]},
        {"prompts": []},
        {"answers": "x"},
        {"answers": [{"text": None}]},
        {"answers": [[]]},
        {"cost": {"calls": 1e999}},
        {"cost": []},
        {"budget": {"calls": "x"}},
        {"refusal": 7},
        None,
        "[" * 100_000,
    ],
    ids=str,
)
def test_a_batch_with_something_else_in_it_is_named(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "t.sqlite"
    llm = RecordedLLM(ScriptedLLM(["a"]), path)
    llm.complete(["p"])
    llm.close()
    with sqlite3.connect(path) as db:
        ((content,),) = db.execute("SELECT content FROM batches")
        known = json.loads(zlib.decompress(content))
        text = json.dumps(known | change if isinstance(change, dict) else change)
        db.execute("UPDATE batches SET content = ?", (zlib.compress((change if text[1:2] == "[" else text).encode()),))
    with pytest.raises(ValueError, match=r"the transcript .*t\.sqlite cannot be read"):
        ReplayLLM(path)
