"""Writes small KuaiRand-Pure folders, exact in files and columns, made up in every value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

LOG_COLUMNS = [
    *("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment"),
    *("is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time"),
    *("comment_stay_time", "is_profile_enter", "is_rand", "tab"),
]
FIRST_DAY_MS = 1_650_816_000_000
"""Midnight of 25 April 2022 in China."""
DAY_MS = 86_400_000


def users(n: int, seed: int = 0) -> pd.DataFrame:
    """User features with every official column."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"user_id": np.arange(n)})
    frame["user_active_degree"] = rng.choice(["full_active", "high_active", "middle_active"], n)
    frame["is_lowactive_period"] = 0
    frame["is_live_streamer"] = rng.choice([-124, 1], n)
    frame["is_video_author"] = rng.integers(0, 2, n)
    ranges = {"follow": ["0", "(0,10]", "500+"], "fans": ["0", "[1,10)"], "friend": ["0", "[1,5)"]}
    for kind, values in ranges.items():
        frame[f"{kind}_user_num"] = rng.integers(0, 900, n)
        frame[f"{kind}_user_num_range"] = rng.choice(values, n)
    frame["register_days"] = rng.integers(15, 900, n)
    frame["register_days_range"] = rng.choice(["15-30", "730+"], n)
    for i in range(18):
        frame[f"onehot_feat{i}"] = rng.integers(0, 3, n)
    return frame


def videos(n: int, seed: int = 0, tags: tuple[str, ...] = ("3", "39", "62,4", "7", "29", "30")) -> pd.DataFrame:
    """Basic video features; the first videos carry the tags in turn, so every tag has a video."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"video_id": np.arange(n), "author_id": rng.integers(0, 999, n)})
    frame["video_type"] = rng.choice(["NORMAL", "AD"], n, p=[0.9, 0.1])
    frame["upload_dt"] = "2022-04-10"
    frame["upload_type"] = rng.choice(["LongImport", "Web"], n)
    frame["visible_status"] = 0.0
    frame["video_duration"] = rng.choice([5_000.0, 45_000.0, 400_000.0, np.nan], n)
    frame["server_width"], frame["server_height"] = 720.0, 1280.0
    frame["music_id"] = rng.integers(0, 999, n)
    frame["music_type"] = rng.choice([9.0, 4.0, np.nan], n)
    frame["tag"] = [tags[i % len(tags)] for i in range(n)]
    return frame


def log(n: int, n_users: int, n_videos: int, *, days: int = 10, first_day: int = 0, seed: int = 0) -> pd.DataFrame:
    """Exposures spread over the days, in time order, all distinct; like the real ones, a long view is a click."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"user_id": rng.integers(0, n_users, n), "video_id": rng.integers(0, n_videos, n)})
    span = np.sort(rng.choice(days * DAY_MS, n, replace=False))
    frame["time_ms"] = FIRST_DAY_MS + first_day * DAY_MS + span
    local = pd.to_datetime(frame["time_ms"] + 8 * 3_600_000, unit="ms")
    frame["date"] = local.dt.strftime("%Y%m%d").astype(int)
    frame["hourmin"] = local.dt.hour * 100
    frame["is_click"] = (rng.random(n) < 0.45).astype(int)
    frame["long_view"] = ((rng.random(n) < 0.7) & (frame["is_click"] == 1)).astype(int)
    for name in ("like", "follow", "comment", "forward", "hate"):
        frame[f"is_{name}"] = (rng.random(n) < 0.02).astype(int)
    for name in ("play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter", "tab"):
        frame[name] = 1
    frame["is_rand"] = 0
    return frame[LOG_COLUMNS]


def sequences(rows: list[tuple[int, int, int, list[int], list[int], list[int]]]) -> pd.DataFrame:
    """Earlier exposures: (user, history length, last time, watched, liked, long-watched) per user."""
    columns = ["user_id", "history_len", "last_time_ms", "watch_seq", "like_seq", "long_watch_seq"]
    frame = pd.DataFrame(rows, columns=columns)
    for name in columns[3:]:
        frame[name] = pd.Series([np.array(values, dtype=np.int64) for values in frame[name]], dtype=object)
    return frame


def write_kuairand(
    root: Path,
    *,
    n_users: int = 30,
    n_videos: int = 40,
    n_rows: int = 600,
    days: int = 10,
    seed: int = 0,
    random_rows: int = 0,
    tag_names: bool = True,
) -> Path:
    """Write ``root/KuaiRand-Pure`` and return its data folder; a tenth of the rows goes into the first log."""
    data = root / "KuaiRand-Pure" / "data"
    data.mkdir(parents=True, exist_ok=True)
    users(n_users, seed).to_csv(data / "user_features_pure.csv", index=False)
    videos(n_videos, seed).to_csv(data / "video_features_basic_pure.csv", index=False)
    rows = log(n_rows, n_users, n_videos, days=days, seed=seed)
    rows.iloc[: n_rows // 10].to_csv(data / "log_standard_4_08_to_4_21_pure.csv", index=False)
    rows.iloc[n_rows // 10 :].to_csv(data / "log_standard_4_22_to_5_08_pure.csv", index=False)
    if random_rows:
        random = log(random_rows, n_users, n_videos, days=days, seed=seed + 1).assign(is_rand=1)
        random.to_csv(data / "log_random_4_22_to_5_08_pure.csv", index=False)
    if tag_names:
        lines = ["tag_id,name_zh,name_en,confidence", "3,x,Gaming,high", "4,x,Beauty,high", "7,x,Sports,high"]
        lines += ["29,x,Science and law,medium", "30,x,Science and law,low", "39,x,Film TV and variety,high"]
        (data.parent / "tag_names.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data
