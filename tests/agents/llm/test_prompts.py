from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.agents.llm import Prompt


def test_a_prompt_is_read_from_a_file_with_its_variables(tmp_path: Path) -> None:
    text = "Rate $item for ${user}s, in $$.\nÜber: $item\n"
    (tmp_path / "rate.txt").write_text(text, "utf-8")
    for path in (tmp_path / "rate.txt", str(tmp_path / "rate.txt")):
        prompt = Prompt.from_file(path)
        assert (prompt.name, prompt.text, prompt.variables) == ("rate", text, {"item", "user"})
        assert prompt.version == hashlib.sha256(text.encode()).hexdigest()[:12]
        assert prompt.fill(item="a $user", user=7) == "Rate a $user for 7s, in $.\nÜber: a $user\n"


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(), min_size=1),
    st.text(st.characters(exclude_characters="$")),
)
def test_values_replace_their_variables(values: dict[str, str], glue: str) -> None:
    prompt = Prompt("p", glue.join(f"${{{name}}}" for name in values))
    assert prompt.fill(**values) == glue.join(values.values())


def test_missing_and_unknown_variables_are_named() -> None:
    prompt = Prompt("rate", "$item and $user")
    with pytest.raises(ValueError, match=r"'rate' must have the variables \$item; missing: none; unknown: \$user "):
        prompt.fill(item=1)
    with pytest.raises(ValueError, match=r"variables \$item, \$time, \$user; missing: \$time; unknown: none "):
        prompt.check(["user", "time", "item"])
    with pytest.raises(ValueError, match=r"variables none; missing: none; unknown: \$item, \$user "):
        prompt.fill()


@pytest.mark.parametrize("text", ["costs 5 $", "$ 5", "${", "${a", "$1"])
def test_a_dollar_sign_that_begins_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"'rate' has a \$ without a variable's name: write a dollar sign as \$\$"):
        Prompt("rate", text)


def test_files_that_are_no_prompt_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"rate\.txt"):
        Prompt.from_file(tmp_path / "rate.txt")
    (tmp_path / "rate.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"rate\.txt is not UTF-8 .*: save it as UTF-8"):
        Prompt.from_file(tmp_path / "rate.txt")
