"""Pictures of sessions say what happened, legibly, in text and in pixels."""

from __future__ import annotations

import re
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rapport.envs.session.engine.quit_rules import Never
from rapport.envs.session.render import fonts as render_fonts
from rapport.envs.session.render import image as render_image
from rapport.envs.session.render.ansi import ansi
from rapport.envs.session.render.fonts import covers, cut, legible, wrapped
from rapport.envs.session.render.image import Layout, rgb_array
from rapport.envs.session.render.view import (
    OTHER_PLACE,
    SAME_PLACE,
    SessionFrame,
    behaviour_marks,
    ending,
    repeats,
    spending,
)

NAMES = ("Dance", "Music", "Film TV and variety", "Pets", "Science and law", "Cars", "Food")
BEHAVIOURS = ("click", "long_view", "like", "rated")
CODES = re.compile(r"\x1b\[[0-9;]*m")


def a_frame(slates=((0, 1), (0, 2)), feedback=None, costs=None, names=NAMES, rule="positional", ended="", budget=20.0):
    shown = np.array(slates, np.int32).reshape(len(slates), -1)
    told = np.zeros((*shown.shape, len(BEHAVIOURS)), np.int8) if feedback is None else np.array(feedback, np.int8)
    paid = np.ones(len(shown)) if costs is None else np.array(costs, float)
    return SessionFrame(
        user="user 7",
        traits=(("fans_range", "[10,100)"), ("live", "no")),
        category_names=names,
        slates=shown,
        items=shown * 10,
        feedback=told,
        behaviours=BEHAVIOURS,
        costs=paid,
        budget=budget - float(paid.sum()),
        start_budget=budget,
        max_steps=50,
        quit_rule=rule,
        ended=ended,
    )


@st.composite
def views(draw):
    length, places = draw(st.integers(0, 15)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shown = rng.integers(-1, len(NAMES), (length, places)).astype(np.int32)
    feedback = rng.integers(0, 2, (length, places, len(BEHAVIOURS))).astype(np.int8)
    costs = rng.choice([0.0, 1.0, 1.25, 2.0, np.inf], length, p=[0.1, 0.4, 0.2, 0.25, 0.05])
    frame = a_frame(np.zeros((1, places)), ended=draw(st.sampled_from(["", "left", "time limit"])))
    rule = draw(st.sampled_from(["positional", "set_overlap", "satisfaction", "windowed_count", "never", "own_rule"]))
    return replace(frame, slates=shown, items=shown, feedback=feedback, costs=costs, quit_rule=rule)


def text_of(frame, **options):
    return CODES.sub("", ansi(frame, **options))


# --- in words


def test_repeats_against_a_slow_count():
    slates = np.random.default_rng(0).integers(-1, 4, (30, 5)).astype(np.int32)
    expected = np.zeros_like(slates)
    for t in range(1, 30):
        for k in range(5):
            if slates[t, k] >= 0 and slates[t, k] in slates[t - 1]:
                expected[t, k] = SAME_PLACE if slates[t, k] == slates[t - 1, k] else OTHER_PLACE
    np.testing.assert_array_equal(repeats(slates), expected)


@pytest.mark.parametrize(
    ("rule", "costs", "budget", "said"),
    [
        ("positional", [1] * 8 + [2] * 6, 20, "of a budget of 20, 14 went on slates, 6 on repeated categories"),
        ("positional", [2] * 11, 21.5, "11 went on slates, 11 on repeated categories, 0.5 more than there was"),
        ("satisfaction", [1.5, 1.7], 4, "2 went on slates, 1.2 on items not liked, 0.8 was too little for another"),
        ("somebodys_own", [3, 3, 4], 10, "of a budget of 10, 9 went on slates, 1 on extra costs"),
        (
            "windowed_count",
            [0, 0, np.inf],
            20,
            "at once after 3 slates: the last was more than the rule 'windowed count'",
        ),
    ],
)
def test_why_a_user_left(rule, costs, budget, said):
    frame = a_frame([[0]] * len(costs), costs=costs, rule=rule, ended="left", budget=budget)
    assert said in ending(frame)
    assert said in " ".join(text_of(frame).split())


def test_a_session_cut_off_is_not_one_that_was_left():
    said = ending(a_frame([[0]] * 3, ended="time limit"))
    assert "time limit, after 3 slates, with 17 of a budget of 20 left" in said
    assert ending(a_frame()) == ""


@given(views())
def test_the_budget_is_accounted_for(frame):
    spent = spending(frame)
    assert spent.left >= 0 and spent.extra >= -1e-6
    paid = np.where(np.isfinite(frame.costs), frame.costs, 0).sum()
    if not spent.at_once:
        assert spent.slates + spent.extra == pytest.approx(paid)
        assert spent.left == pytest.approx(max(frame.start_budget - paid, 0))


def test_every_behaviour_has_a_mark_of_its_own():
    many = ("click", "like", "save", "share", "skip", *(f"s{i}" for i in range(20)))
    marks = behaviour_marks(many)
    assert len(set(marks.values())) == len(many)
    assert all(len(mark) == 1 for mark in marks.values())


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"costs: shape \(1,\) where \(2,\) is needed"):
        a_frame(costs=[1])


# --- in text


@settings(deadline=None, max_examples=50)
@given(views(), st.integers(60, 160), st.integers(1, 20))
def test_text_stays_within_its_width(frame, width, slates):
    text = text_of(frame, width=width, slates=slates)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert ansi(frame, width=width, slates=slates, colour=False) == text


@settings(deadline=None, max_examples=50)
@given(views())
def test_every_category_in_sight_is_named(frame):
    text = text_of(frame, width=160, slates=20)
    named = set(re.findall(r"\w+", text))
    for category in np.unique(frame.slates[frame.slates >= 0]):
        assert set(NAMES[category].split()) <= named


def test_marks_alone_tell_what_colours_tell():
    feedback = np.zeros((2, 2, 4), np.int8)
    feedback[0, 0] = [1, 1, 0, 0]
    feedback[1, 1] = [0, 0, 1, 1]
    text = ansi(a_frame(((0, 1), (0, 3)), feedback), colour=False)
    assert "\x1b" not in text
    assert "● Dance ▶" in text and "· Music" in text
    assert "=· Dance" in text and "· Pets ♥r" in text
    assert all(word in text for word in ("● click", "▶ long view", "♥ like", "r rated", "at the same place"))
    assert "~● Dance" in ansi(a_frame(((0, 1), (3, 0)), np.ones((2, 2, 4))), colour=False)


def test_colours_are_there_unless_switched_off():
    frame = a_frame()
    assert CODES.search(ansi(frame))
    assert not CODES.search(ansi(frame, colour=False))


def test_old_slates_scroll_off_and_are_counted():
    text = text_of(a_frame([[i % 7] for i in range(15)]), slates=4)
    assert "11 earlier slates not shown" in text
    assert re.findall(r"^ +(\d+) ", text, re.MULTILINE) == ["12", "13", "14", "15"]


def test_places_that_do_not_fit_are_counted():
    feedback = np.zeros((1, 40, 4), np.int8)
    feedback[0, -3:, 0] = 1
    text = text_of(a_frame([np.arange(40) % 7], feedback))
    assert re.search(r"\+\d+: 3 ●", text)


def test_names_cannot_command_the_terminal():
    frame = a_frame(names=("Da\x1b[31mnce", "Mu\nsic", "音乐", *NAMES[3:]))
    text = ansi(frame, colour=False)
    assert "\x1b" not in text and "Da" in text
    assert "Mu sic" in text and "音乐" in text


@pytest.mark.parametrize(("options", "name"), [({"width": 20}, "width=20"), ({"slates": 0}, "slates=0")])
def test_text_too_small_is_refused(options, name):
    with pytest.raises(ValueError, match=name):
        ansi(a_frame(), **options)


# --- in pixels


@settings(deadline=None, max_examples=25)
@given(views())
def test_pictures_have_one_size_and_are_reproducible(frame):
    picture = rgb_array(frame)
    assert picture.shape == (640, 960, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, rgb_array(frame))


def test_a_picture_takes_the_size_it_is_given():
    assert rgb_array(a_frame(), width=640, height=400).shape == (400, 640, 3)
    with pytest.raises(ValueError, match="height=100"):
        rgb_array(a_frame(), height=100)


@pytest.mark.parametrize("places", [1, 2, 3, 6, 10, 100])
@pytest.mark.parametrize(("width", "height"), [(640, 400), (960, 640), (1920, 1080)])
def test_everything_lies_within_the_picture(places, width, height):
    layout = Layout.of(places, width, height)
    last = layout.rows * layout.columns - 1
    assert layout.rows >= 1 and layout.places + layout.rest == places
    assert layout.costs(last) + 86 <= width
    assert layout.top(last) + layout.tall <= height - 70


def colours(picture, colour):
    return int((picture == np.array(Image.new("RGB", (1, 1), colour))[0, 0]).all(axis=2).sum())


def test_clicks_repeats_and_extra_costs_are_seen():
    quiet = rgb_array(a_frame(((0, 1), (2, 3))))
    told = np.zeros((2, 2, 4), np.int8)
    told[0, 0, 0] = 1
    clicked = rgb_array(a_frame(((0, 1), (2, 3)), told))
    repeated = rgb_array(a_frame(((0, 1), (0, 3)), costs=[1, 2]))
    assert colours(clicked, render_image.CLICKED) > colours(quiet, render_image.CLICKED) + 1000
    assert colours(repeated, render_image.REPEATED) > colours(quiet, render_image.REPEATED) + 100
    assert colours(quiet, render_image.EXTRA) < colours(repeated, render_image.EXTRA) - 100
    left = rgb_array(a_frame(((0, 1), (0, 3)), costs=[1, 2], budget=3, ended="left"))
    assert colours(left, render_image.EXTRA) > 20_000


def test_another_category_is_another_picture():
    assert (rgb_array(a_frame(((0, 1), (2, 3)))) != rgb_array(a_frame(((0, 1), (2, 5))))).any()


def test_letters_that_no_font_has_are_not_drawn_as_boxes(monkeypatch):
    for cached in (legible, render_fonts._system):
        cached.cache_clear()
    monkeypatch.setattr(render_fonts, "_SYSTEM", ())
    assert legible("Dance", 13).text == "Dance"
    assert legible("颜值", 13, "category 3").text == "category 3"
    assert legible("Caf\U0010ffff x", 13).text == "Caf? x"
    legible.cache_clear()


def test_a_font_that_has_the_letters_is_looked_for():
    found = legible("Жизнь", 13, "category 3")
    assert found.text == "category 3" or covers(found.font, "Жизнь")


@given(st.text("abc def", max_size=60), st.integers(40, 200), st.integers(1, 3))
def test_wrapped_text_fits(text, width, most):
    font = legible("a", 13).font
    lines = wrapped(text, font, width, most)
    assert 1 <= len(lines) <= most
    assert all(font.getlength(line) <= width for line in lines)
    assert cut("short", font, 1000) == "short"


HOSTILE = "".join(map(chr, (*range(32), 127, *range(128, 160), 0x200B, 0x200F, *range(0x2028, 0x202F))))
HOSTILE += "".join(map(chr, (*range(0x2066, 0x206A), 0x061C, 0xFEFF, 0xD800, 0xE0041, 0xFFFF)))
"""Controls of terminals, of the direction of writing, and what no encoding has."""


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("evil", [f"a{HOSTILE}b\x1b]0;title\x07\x1b[2J", "x" * 9_000, "wörter " * 1_000])
def test_no_text_of_a_log_reaches_the_terminal_raw(small_data, matrix_response, mode, evil):
    """Names of categories, values and names of features, and a rule's name; every one of them hostile."""

    class Rule(Never):
        name = evil

    catalog, users = small_data.catalog, small_data.population
    names = tuple(f"{evil}{i}" for i in range(catalog.n_categories))
    values = tuple(tuple(f"{value}{evil}" for value in column) for column in users.features.values)
    features = replace(users.features, names=tuple(f"{name}{evil}" for name in users.features.names), values=values)
    data = replace(
        small_data, catalog=replace(catalog, category_names=names), population=replace(users, features=features)
    )
    env = gym.make(
        "rapport/KuaiRand-v0", data=data, response=matrix_response, quit_rule=Rule(), max_steps=2, render_mode=mode
    )
    env.reset(seed=0)
    for slate in ([0, 1, 2, 3, 4, 5], [0, 7, 8, 9, 10, 11]):
        env.step(slate)
    shown = env.render()
    if mode == "ansi":
        plain = CODES.sub("", shown)
        assert len(plain) < 4_000
        assert not set(plain) & set(HOSTILE) - {"\n"}
        shown.encode()
    else:
        assert shown.shape == (640, 960, 3)
