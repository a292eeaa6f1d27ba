from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from rapport.agents.llm import Budget, CachedLLM, Completion, Sampling, ScriptedLLM
from rapport.agents.llm.sqlite import Store


def counting_llm(sampling: Sampling | None = None, identity: str = "m") -> ScriptedLLM:
    calls = iter(range(10**6))
    return ScriptedLLM(lambda prompt: f"{prompt} {next(calls)}", sampling=sampling, identity=identity)


def test_answers_outlive_the_process_and_cost_nothing(tmp_path: Path) -> None:
    first = CachedLLM(counting_llm(), tmp_path / "cache.sqlite")
    assert [a.text for a in first.complete(["a", "b"])] == ["a 0", "b 1"]
    first.close()
    second = CachedLLM(counting_llm(), tmp_path / "cache.sqlite")
    answers = second.complete(["b", "c", "a"])
    assert [a.text for a in answers] == ["b 1", "c 0", "a 0"]
    assert [a.cached for a in answers] == [True, False, True]
    assert second.meter.calls == 1 and second.meter.cache_hits == 2 and len(second) == 3


def test_equal_prompts_in_a_batch_are_sent_once(tmp_path: Path) -> None:
    llm = CachedLLM(counting_llm(), tmp_path / "cache.sqlite")
    answers = llm.complete(["a", "a", "b", "a"])
    assert [a.text for a in answers] == ["a 0", "a 0", "b 1", "a 0"]
    assert [a.cached for a in answers] == [False, True, False, True]
    assert llm.meter.calls == 2 and llm.meter.cache_hits == 2


def test_everything_an_answer_depends_on_is_in_the_key(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    base = CachedLLM(counting_llm(), path)
    base.complete(["a"], {"type": "object"}, 10)
    base.complete(["a"], {"type": "object"}, 11)
    base.complete(["a"], None, 10)
    CachedLLM(counting_llm(Sampling(seed=1)), path).complete(["a"], {"type": "object"}, 10)
    CachedLLM(counting_llm(identity="other"), path).complete(["a"], {"type": "object"}, 10)
    assert len(base) == 5


def test_failures_are_not_kept(tmp_path: Path) -> None:
    llm = CachedLLM(ScriptedLLM([TimeoutError("late"), "fine"]), tmp_path / "cache.sqlite")
    first = llm.complete(["a", "a"])
    assert [a.error for a in first] == ["TimeoutError: late"] * 2 and llm.meter.cache_hits == 0
    assert llm.complete(["a"])[0].text == "fine"


@pytest.mark.parametrize("damage", ["garbage", "truncated", "in use"])
def test_a_damaged_cache_is_set_aside_and_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "cache.sqlite"
    llm = CachedLLM(counting_llm(), path)
    llm.complete([f"prompt {n}" for n in range(500)])
    llm.close()
    data = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"\xff" * len(data))
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2 + 100])
    else:
        llm.complete(["open"])
        llm.close()
        path.write_bytes(data[:100] + b"\xa5" * (len(data) - 100))
    with caplog.at_level(logging.WARNING):
        again = CachedLLM(counting_llm(), path)
        texts = [a.text for a in again.complete([f"prompt {n}" for n in range(500)])]
    assert len(texts) == 500 and all(texts)
    assert "is damaged" in caplog.text and (tmp_path / "cache.sqlite.corrupt-1").exists()
    assert again.complete(["prompt 7"])[0].cached


def test_odd_text_is_kept(tmp_path: Path) -> None:
    llm = CachedLLM(ScriptedLLM(["a\ud800b\x00"]), tmp_path / "cache.sqlite")
    llm.complete(["p\ud800"])
    assert llm.complete(["p\ud800"])[0].text == "a?b\x00"


def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    code = (
        "import sys; from rapport.agents.llm import CachedLLM, ScriptedLLM\n"
        "llm = CachedLLM(ScriptedLLM(lambda p: p.upper()), sys.argv[1])\n"
        "for n in range(300):\n    assert llm.complete([f'p{n}', f'q{n}'])[0].text == f'P{n}'\n"
        "print(llm.meter.calls)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache.sqlite")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    calls = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    llm = CachedLLM(ScriptedLLM(lambda p: p), tmp_path / "cache.sqlite")
    assert len(llm) == 600 and sum(calls) >= 600
    assert all(a.cached for a in llm.complete([f"p{n}" for n in range(300)]))


def test_processes_that_open_new_files_at_once_all_get_them(tmp_path: Path) -> None:
    code = (
        "import sys, time; from rapport.agents.llm.sqlite import Store\n"
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time()))\n"
        "for n in range(30):\n"
        "    store = Store(f'{sys.argv[1]}{n}', 'CREATE TABLE IF NOT EXISTS seen (process)')\n"
        "    store.run(lambda db: db.execute('INSERT INTO seen VALUES (1)'), write=True)\n"
        "    store.close()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(time.time() + 3)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]
    stores = [Store(tmp_path / f"store{n}", "") for n in range(30)]
    assert all(s.run(lambda db: db.execute("SELECT count(*) FROM seen").fetchone()) == (4,) for s in stores)


def test_a_locked_cache_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapport.agents.llm.sqlite._BUSY_SECONDS", 0.05)
    path = tmp_path / "cache.sqlite"
    llm = CachedLLM(counting_llm(), path)
    other = Store(path, "")

    def work_while_locked(db: object) -> str:
        return llm.complete(["a"])[0].text

    assert other.run(work_while_locked, write=True) == "a 0"
    assert len(llm) == 0


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*cache\.sqlite cannot be created"):
        CachedLLM(counting_llm(), tmp_path / "file" / "cache.sqlite")


def test_files_and_keys_of_earlier_versions_stay_valid(tmp_path: Path) -> None:
    """The key word for word, in a file with the one table that there was."""
    settings = {
        "model": "m",
        "sampling": {"temperature": 0.8, "top_p": 0.9, "seed": 0},
        "schema": None,
        "max_tokens": 256,
    }
    key = hashlib.sha256(json.dumps([json.dumps(settings, sort_keys=True), "a"]).encode()).hexdigest()
    with sqlite3.connect(tmp_path / "cache.sqlite") as db:
        db.execute(
            "CREATE TABLE answers (key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, "
            "completion_tokens INTEGER NOT NULL) WITHOUT ROWID"
        )
        db.execute("INSERT INTO answers VALUES (?, 'from before', 3, 4)", (key,))
    llm = CachedLLM(counting_llm(), tmp_path / "cache.sqlite")
    assert llm.complete(["a"]) == [Completion("from before", 3, 4, cached=True)]
    assert llm.complete(["a"], n=2)[0].text != "from before" and llm.complete(["a"])[0].text == "from before"


def test_samples_system_messages_and_log_probabilities_are_cached(tmp_path: Path) -> None:
    calls = iter(range(10**6))

    def script(prompt: str) -> Completion:
        number = next(calls)
        return Completion(f"{prompt} {number}", 1, 2, logprobs=(-0.1 * number, -1 / 3))

    llm = CachedLLM(ScriptedLLM(script), tmp_path / "cache.sqlite")
    first = llm.complete(["a", "b", "a"], n=2)
    assert [a.text for a in first] == ["a 0", "a 1", "b 2", "b 3", "a 0", "a 1"]
    assert [a.text for a in llm.complete(["b", "c"], n=2)] == ["b 2", "b 3", "c 4", "c 5"]
    assert [a.text for a in llm.complete(["a"])] == ["a 0"]
    assert [a.text for a in llm.complete(["a"], system="s")] == ["a 6"]
    assert [a.text for a in llm.complete(["a"], system="t")] == ["a 7"]
    assert llm.complete(["a"], system="s", logprobs=True)[0].logprobs == (-0.1 * 8, -1 / 3)
    llm.close()
    again = CachedLLM(ScriptedLLM([]), tmp_path / "cache.sqlite")
    (kept,) = again.complete(["a"], system="s", logprobs=True)
    assert kept == Completion("a 8", 1, 2, cached=True, logprobs=(-0.1 * 8, -1 / 3))
    assert again.complete(["a"], system="s")[0].logprobs is None
    assert (again.meter.calls, again.meter.cache_hits) == (0, 2)


def test_what_a_payer_paid_for_before_it_was_stopped_costs_it_the_same_again(tmp_path: Path) -> None:
    def opened() -> CachedLLM:
        return CachedLLM(ScriptedLLM(lambda prompt: f"an answer to {prompt}"), tmp_path / "cache.sqlite")

    def ask(llm: CachedLLM, *prompts: str) -> dict[str, float]:
        llm.complete(prompts)
        return {name: count for name, count in llm.meter.to_dict().items() if name != "seconds"}

    first = opened()
    first.pay_for("part one")
    ask(first, "a", "b", "a")
    first.pay_for("part two")
    once = ask(first, "b", "c")  # b is of part one
    assert (once["calls"], once["cache_hits"]) == (3, 2)
    tokens = once["prompt_tokens"], once["completion_tokens"]

    again = opened()  # part one from its beginning, as after a stop: nothing is sent
    again.pay_for("part one")
    ask(again, "a", "b", "a")
    again.pay_for("part two")
    assert ask(again, "b", "c") == once
    assert (again.meter.prompt_tokens, again.meter.completion_tokens) == tokens
    assert not again.llm.prompts  # type: ignore[attr-defined]
    assert again.meter.seconds == pytest.approx(first.meter.seconds)
    assert ask(again, "c")["cache_hits"] == once["cache_hits"] + 1  # paid for once, not twice

    for payer in ("part three", ""):
        other = opened()
        other.pay_for(payer)
        assert ask(other, "a", "b", "c")["calls"] == 0


def test_what_was_paid_counts_towards_the_budget(tmp_path: Path) -> None:
    def opened() -> CachedLLM:
        return CachedLLM(ScriptedLLM(lambda prompt: "yes", budget=Budget(calls=3)), tmp_path / "cache.sqlite")

    first = opened()
    first.pay_for("part")
    first.complete(["a", "b"])
    again = opened()
    again.pay_for("part")
    answers = again.complete(["a", "c", "b", "d"])
    assert [answer.error is None for answer in answers] == [True, True, True, False]
    assert again.meter.calls == 3 and not any(answer.cached for answer in answers)


def test_a_file_of_an_earlier_version_learns_who_paid(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    CachedLLM(ScriptedLLM(["old"]), path).complete(["a"])
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE paid")
        db.commit()
    llm = CachedLLM(ScriptedLLM(["new"]), path)
    llm.pay_for("part")
    assert [answer.text for answer in llm.complete(["a", "b"])] == ["old", "new"]
    assert (llm.meter.calls, llm.meter.cache_hits) == (1, 1)
