"""From a custom log to an environment: a made-up shop, its CSV files, their manifest, and some sessions."""

import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd

import rapport
from rapport.datasets.custom.manifest import read_manifest

MANIFEST = """
name = "my-shop"

[interactions]
path = "log.csv"
user = "customer"
item = "sku"
time = "time"                              # text in ISO 8601; numbers would need time_unit

[interactions.behaviours]                  # the first is the one that is rewarded
click = "clicked"
like = { column = "rating", at_least = 4 } # not recorded where there is no rating

[items]
path = "items.csv"
category = "department"
features = ["brand", { column = "price", bins = 4 }]

[users]
path = "users.csv"
features = ["country"]

[environment]
slate_size = 4
quit_rule = "set_overlap"
budget = 12
"""


def write_shop(folder: Path, n_rows: int = 6_000) -> Path:
    """Write a made-up shop: 200 customers with a favourite department each see 120 products over two weeks."""
    rng = np.random.default_rng(0)
    departments = np.array(["books", "garden", "kitchen", "music", "toys", "travel"])
    items = pd.DataFrame({"sku": [f"SKU-{i:04d}" for i in range(120)], "department": rng.choice(departments, 120)})
    items["brand"], items["price"] = rng.choice(["Acorn", "Birch", "Cedar"], 120), rng.lognormal(3, 1, 120).round(2)
    users = pd.DataFrame({"customer": np.arange(200), "country": rng.choice(["DE", "FR", "IT"], 200)})
    favourite = rng.choice(departments, 200)

    customer, product = rng.integers(0, 200, n_rows), rng.integers(0, 120, n_rows)
    liked = favourite[customer] == items["department"].to_numpy()[product]
    clicked = rng.random(n_rows) < np.where(liked, 0.7, 0.2)
    rating = np.where(clicked & (rng.random(n_rows) < 0.3), np.where(liked, 5, 3), np.nan)
    seconds = rng.integers(0, 14 * 86_400, n_rows)
    log = pd.DataFrame({"customer": customer, "sku": items["sku"].to_numpy()[product]})
    log["time"] = pd.Timestamp("2026-03-01") + pd.to_timedelta(seconds, unit="s")
    log["clicked"], log["rating"] = clicked.astype(int), rating

    for name, frame in (("log", log), ("items", items), ("users", users)):
        frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / "shop.toml").write_text(MANIFEST, encoding="utf-8")
    return folder / "shop.toml"


with tempfile.TemporaryDirectory() as folder:
    manifest = write_shop(Path(folder))
    env = gym.make(rapport.register_log(manifest))
    skus = read_manifest(manifest).item_ids()

data = env.unwrapped.core.data
print(f"{env.spec.id}: {len(data.log):,} rows, {data.population.n_users} people, {data.catalog.n_items} items")
print(f"categories: {', '.join(data.catalog.category_names)}; behaviours: {', '.join(data.log.behaviours)}")
for session in range(5):
    observation, info = env.reset(seed=session)
    env.action_space.seed(session)
    clicks, slates, left = 0.0, 0, False
    while not left:
        slate = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(slate)
        clicks, slates, left = clicks + reward, slates + 1, terminated or truncated
    print(f"customer {info['user']:>3} left after {slates} slates, the last one {', '.join(skus[slate])}", end="; ")
    print(f"mean click rate {clicks / slates:.2f}")
