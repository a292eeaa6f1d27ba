"""Writes KuaiRec folders of any size, exact in files, columns and number formats, made up in every value.

Like the real ones: the small matrix lacks some pairs and some of its times, its dates are floats; the big matrix is
sorted by user and time and holds videos watched again and, where asked for, rows reported twice; captions contain bare
carriage returns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

CATEGORIES = [(8, "颜值"), (27, "高新数码"), (9, "喜剧"), (26, "摄影"), (5, "时尚"), (-124, "UNKNOWN"), (19, "情感")]
"""Real pairs of first-level id and name, dealt out in turn."""
MATRIX_COLUMNS = [
    *("user_id", "video_id", "play_duration", "video_duration", "time", "date", "timestamp", "watch_ratio")
]
FIRST_DAY_S = 1_593_878_400
"""Midnight of 5 July 2020 in China."""
DAY_MS = 86_400_000
CHUNK = 1 << 20

Ints = NDArray[np.int64]


def users(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """User features with every official column."""
    frame = pd.DataFrame({"user_id": np.arange(n)})
    frame["user_active_degree"] = rng.choice(["full_active", "high_active", "UNKNOWN"], n)
    for name in ("is_lowactive_period", "is_live_streamer", "is_video_author"):
        frame[name] = rng.integers(0, 2, n)
    ranges = {"follow": ["0", "(0,10]", "500+"], "fans": ["0", "[1,10)"], "friend": ["0", "[1,5)"]}
    for kind, values in ranges.items():
        frame[f"{kind}_user_num"] = rng.integers(0, 900, n)
        frame[f"{kind}_user_num_range"] = rng.choice(values, n)
    frame["register_days"] = rng.integers(15, 900, n)
    frame["register_days_range"] = rng.choice(["15-30", "730+"], n)
    for i in range(18):
        frame[f"onehot_feat{i}"] = rng.integers(0, 3, n)
    frame.loc[0, "onehot_feat17"] = np.nan
    return frame


def videos(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Captions and categories with every official column; the categories in turn, so every one has a video."""
    pairs = [CATEGORIES[i % len(CATEGORIES)] for i in range(n)]
    frame = pd.DataFrame({"video_id": np.arange(n), "manual_cover_text": "UNKNOWN"})
    captions = ["", 'a, "b"', "[1, 2]", "#c 精神", "half\r done", "at the end\r"]
    frame["caption"] = [captions[i % len(captions)] for i in range(n)]
    frame["topic_tag"] = rng.choice(["[]", "[五爱市场,搞笑]"], n)
    frame["first_level_category_id"] = [identity for identity, _ in pairs]
    frame["first_level_category_name"] = [name for _, name in pairs]
    second = rng.choice([-124, 223, 418], n)
    frame["second_level_category_id"] = second
    names = {-124: "UNKNOWN", 223: "社会事件", 418: "生活泛拍"}
    frame["second_level_category_name"] = [names[identity] for identity in second]
    frame["third_level_category_id"], frame["third_level_category_name"] = -124, "UNKNOWN"
    return frame


def tags(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """One to four tags per video, as in ``[27, 9]``."""
    lists = [rng.choice(31, size=size, replace=False).tolist() for size in rng.choice([1, 1, 1, 2, 3, 4], n)]
    return pd.DataFrame({"video_id": np.arange(n), "feat": [str(tags) for tags in lists]})


def matrix(user: Ints, video: Ints, duration: Ints, time_ms: Ints, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of a matrix; ``time_ms`` counts from the first day, below 0 where there is no time."""
    length = duration[video]
    play = np.rint(length * rng.lognormal(-0.35, 0.8, len(user))).astype(np.int64)
    frame = pd.DataFrame({"user_id": user, "video_id": video, "play_duration": play, "video_duration": length})
    local = np.datetime64("2020-07-05T00:00:00.000") + time_ms.astype("timedelta64[ms]")
    frame["time"] = np.char.replace(local.astype(str), "T", " ")
    frame["date"] = np.char.replace(local.astype("datetime64[D]").astype(str), "-", "").astype(np.int64)
    frame["timestamp"] = FIRST_DAY_S + time_ms / 1_000
    frame["watch_ratio"] = play / length
    if (missing := time_ms < 0).any():
        frame["date"] = frame["date"].astype(np.float64).astype(str)
        for name in ("time", "date", "timestamp"):
            frame[name] = frame[name].mask(missing)
    return frame[MATRIX_COLUMNS]


def small_rows(truth_users: Ints, truth_items: Ints, days: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """User, video and time of every pair but about 0.4 %; every user and video keeps some; 4 % have no time."""
    seen = rng.random((len(truth_users), len(truth_items))) >= 0.004
    seen[:, 0] = seen[0] = True
    row, column = np.nonzero(seen)
    time_ms = rng.integers(0, days * DAY_MS, len(row))
    time_ms[rng.random(len(row)) < 0.04] = -1
    return truth_users[row], truth_items[column], time_ms


def big_rows(n_rows: int, n_users: int, n_items: int, days: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """User, video and time, sorted by user and time; popular videos come again and again."""
    user = rng.integers(0, n_users, n_rows)
    video = np.minimum(rng.exponential(n_items / 3, n_rows).astype(np.int64), n_items - 1)
    time_ms = rng.integers(0, days * DAY_MS, n_rows)
    order = np.lexsort((time_ms, user))
    return user[order], video[order], time_ms[order]


def write_matrix(
    path: Path,
    rows: tuple[Ints, Ints, Ints],
    duration: Ints,
    rng: np.random.Generator,
    reported_twice: float = 0.0,
) -> None:
    """Write user, video and time of rows below a header, a million at a time."""
    options = pacsv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as file:
        file.write((",".join(MATRIX_COLUMNS) + "\n").encode())
        for start in range(0, len(rows[0]), CHUNK):
            user, video, time_ms = (column[start : start + CHUNK] for column in rows)
            frame = matrix(user, video, duration, time_ms, rng)
            if reported_twice:
                frame = frame.iloc[np.repeat(np.arange(len(frame)), 1 + (rng.random(len(frame)) < reported_twice))]
            pacsv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), file, options)


def write_kuairec(
    folder: Path,
    n_users: int = 40,
    n_items: int = 60,
    n_truth_users: int = 12,
    n_truth_items: int = 25,
    rng: np.random.Generator | None = None,
    *,
    n_rows: int = 3_000,
    days: int = 20,
    reported_twice: float = 0.0,
) -> Path:
    """Write ``folder/KuaiRec/data`` and return it; ids are 0, 1, 2, ... and the truth is about some of them."""
    rng = np.random.default_rng(0) if rng is None else rng
    data = folder / "KuaiRec" / "data"
    data.mkdir(parents=True, exist_ok=True)
    users(n_users, rng).to_csv(data / "user_features.csv", index=False)
    videos(n_items, rng).to_csv(data / "kuairec_caption_category.csv", index=False)
    tags(n_items, rng).to_csv(data / "item_categories.csv", index=False)
    duration = rng.integers(3_067, 60_000, n_items)
    truth_users = np.sort(rng.permutation(n_users)[:n_truth_users])
    truth_items = np.sort(rng.permutation(n_items)[:n_truth_items])
    small = small_rows(truth_users, truth_items, days, rng)
    write_matrix(data / "small_matrix.csv", small, duration, rng)
    big = big_rows(n_rows, n_users, n_items, days, rng)
    write_matrix(data / "big_matrix.csv", big, duration, rng, reported_twice)
    return data


def frame(path: Path) -> pd.DataFrame:
    """A file as a plain reader sees it."""
    return pd.read_csv(path, lineterminator="\n", keep_default_na=path.name.endswith("matrix.csv"))


def change(path: Path, edit: Callable[[pd.DataFrame], Any]) -> None:
    """Rewrite a file; ``edit`` changes the table or returns another."""
    table = frame(path)
    changed = edit(table)
    (table if changed is None else changed).to_csv(path, index=False)


def put(column: str, value: object, row: int = 3) -> Callable[[pd.DataFrame], None]:
    """An edit for :func:`change` that puts a value into one cell."""

    def edit(table: pd.DataFrame) -> None:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value

    return edit
