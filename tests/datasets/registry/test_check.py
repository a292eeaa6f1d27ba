from __future__ import annotations

from pathlib import Path
from types import ModuleType

from rapport.datasets.registry.check import FileCheck, State, check


def by_file(lines: list[FileCheck]) -> dict[str, FileCheck]:
    return {line.file: line for line in lines}


def test_nothing_there(tmp_path: Path) -> None:
    lines = check(tmp_path)
    assert {line.state for line in lines} == {State.ABSENT}
    assert len(lines) == 6
    assert list(tmp_path.iterdir()) == []


def test_small_copy_is_partial_but_readable(kuairand_files: ModuleType, tmp_path: Path) -> None:
    kuairand_files.write_kuairand(tmp_path, random_rows=10)
    lines = by_file(check(tmp_path))
    users = lines["user_features_pure.csv"]
    assert (users.rows, users.published, users.state) == (30, 27_285, State.PARTIAL)
    assert lines["standard logs together"].rows == 600
    assert lines["standard logs together"].published == 1_436_609
    assert lines["log_random_4_22_to_5_08_pure.csv"].rows == 10
    assert lines["read and joined"].state is State.OK


def test_damage_is_named(kuairand_files: ModuleType, tmp_path: Path) -> None:
    data = kuairand_files.write_kuairand(tmp_path)
    path = data / "log_standard_4_22_to_5_08_pure.csv"
    path.write_bytes(path.read_bytes()[:-3])
    lines = by_file(check(tmp_path))
    assert lines[path.name].state is State.DAMAGED
    assert lines["read and joined"].state is State.DAMAGED
    assert path.name in lines["read and joined"].note


def test_kuairec_counts_lines_by_line_feeds_alone(tmp_path: Path) -> None:
    data = tmp_path / "KuaiRec" / "data"
    data.mkdir(parents=True)
    (data / "kuairec_caption_category.csv").write_bytes(b"id,caption\n1,one\r two\n2,three\n")
    lines = by_file(check(tmp_path))
    assert lines["kuairec_caption_category.csv"].rows == 2
    assert lines["small_matrix.csv"].state is State.ABSENT
