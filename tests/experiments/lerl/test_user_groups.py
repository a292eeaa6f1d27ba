"""Groups of users: everybody is in one, and they are what they are called."""

from __future__ import annotations

import numpy as np

from rapport.experiments.lerl.environments import data_of
from rapport.experiments.lerl.user_groups import ACTIVITY, TENURE, groupings


def test_groups_cover_the_held_out_users(twin_env):
    data = data_of(twin_env)
    activity, *others = groupings(data)
    seen = np.bincount(data.log.user[data.log.time_ms < data.test_from_ms], minlength=data.population.n_users)
    sizes = np.bincount(activity.of_user[data.held_out], minlength=3)
    assert activity.groups == ACTIVITY and sizes.sum() == data.held_out.sum() and sizes.min() > 0
    for low in (0, 1):
        assert seen[activity.of_user == low].max() < seen[activity.of_user == low + 1].min()
    for tenure in others:
        column = data.population.features.names.index("register_days_range")
        values = data.population.features.values[column]
        codes = data.population.features.codes[:, column]
        for code, value in enumerate(values):
            first = int("".join(c if c.isdigit() else " " for c in value).split()[0])
            expected = max(i for i, day in enumerate(TENURE) if day <= first)
            assert (tenure.of_user[codes == code] == expected).all()
