"""LERL's released environment once more: one person at a time, in Python's own lists, as plainly as it can be said.

Nothing here is shared with the engine but the random numbers' definition and the weights of the response model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rapport.datasets.schema import SessionData

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
Token = tuple[int, list[int]]
"""Item index + 1 (0: none) and what was done with it, each of F behaviours 0 or 1."""
Responses = Callable[[int, list[Token], list[int]], list[list[float]]]
"""(user, history, slate) -> chance of each behaviour for each item."""


class Uniform:
    """The numbers of one slot: SplitMix64, each output making two of 32 bits, the lower half first."""

    def __init__(self, seed: int) -> None:
        self.key = int(np.random.default_rng(np.random.SeedSequence(seed)).integers(2**64, dtype=np.uint64))

    def __call__(self, session: int, step: int, place: int) -> float:
        state = (self.key + GAMMA * ((session << 32) + (step << 12) + place // 2)) & WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        state ^= state >> 31
        return (state & 0xFFFFFFFF if place % 2 == 0 else state >> 32) / 2**32


class Person:
    """One slot of the environment: whoever is in it, and the next one as soon as this one has left."""

    def __init__(
        self,
        data: SessionData,
        responses: Responses,
        seed: int,
        *,
        faults: frozenset[str],
        rule: str = "positional",
        temper: int = 20,
        length: int = 100,
        max_steps: int = 50,
    ) -> None:
        self.data, self.responses, self.uniform, self.faults = data, responses, Uniform(seed), faults
        self.rule, self.first_temper, self.length, self.max_steps = rule, temper, length, max_steps
        self.category = released_categories(data) if "misaligned_categories" in faults else list(data.catalog.category)
        self.rows = [
            (int(user), int(item), [int(f) for f in feedback], int(time))
            for user, item, feedback, time in zip(
                data.log.user, data.log.item, data.log.feedback, data.log.time_ms, strict=True
            )
        ]
        self.session = 0
        self.begin()

    def begin(self) -> None:
        self.session += 1
        draw = self.uniform(self.session, 0, 0)
        if "log_row_start" in self.faults:
            everything = "trained_on_everything" in self.faults
            usable = [r for r, row in enumerate(self.rows) if everything or row[3] < self.data.test_from_ms]
            row = usable[int(draw * len(usable))]
            self.user = self.rows[row][0]
            past = [r for r in self.rows[:row] if r[0] == self.user]
        else:
            self.user = int(draw * self.data.population.n_users)
            past = [r for r in self.rows if r[0] == self.user and r[3] < self.data.test_from_ms]
        nothing: list[tuple[int, list[int]]] = [(0, [-1] * len(self.data.log.behaviours))] * self.length
        self.history = (nothing + [(item + 1, feedback) for _, item, feedback, _ in past])[-self.length :]
        self.temper = float(self.first_temper)
        self.previous: list[int] | None = None
        self.steps = 0

    def chances(self, slate: list[int]) -> list[list[float]]:
        return self.responses(self.user, [(item, [max(f, 0) for f in done]) for item, done in self.history], slate)

    def show(self, slate: list[int], all_chances: list[list[float]], engines: list[list[int]]) -> dict[str, Any]:
        """One slate, given its chances.

        ``engines`` is what the engine saw happen: its word counts where draw and chance are as good as equal, as
        floating point then decides.
        """
        self.steps += 1
        feedback = []
        for k, chances in enumerate(all_chances):
            feedback.append([])
            for f, chance in enumerate(chances):
                draw = self.uniform(self.session, self.steps, k * len(chances) + f)
                feedback[k].append(engines[k][f] if abs(draw - chance) < 1e-4 else int(draw < chance))
        categories = [int(self.category[item]) for item in slate]
        before = self.temper
        self.lose_temper(categories, feedback)
        left = self.temper < 1
        for item, done in zip(slate, feedback, strict=True):
            self.history = [*self.history[1:], (item + 1, done)]
        result = {
            "reward": sum(done[0] for done in feedback) / len(slate),
            "feedback": feedback,
            "categories": categories,
            "left": left,
            "cut": not left and self.steps >= self.max_steps,
            "cost": before - self.temper,
            "temper": max(self.temper, 0.0),
            "last": self.sees(),
        }
        self.previous = categories
        return result

    def lose_temper(self, categories: list[int], feedback: list[list[int]]) -> None:
        if self.rule == "positional":
            compared = self.previous is not None  # 1. a session's first slate is not
            if compared and any(categories[k] == self.previous[k] for k in range(len(categories))):  # 2. by place
                self.temper -= 1
            self.temper -= 1  # 3. always; 4. who has less than 1 leaves
        elif self.rule == "set_overlap":
            if self.previous is not None and set(categories) & set(self.previous):
                self.temper -= 1
            self.temper -= 1
        elif self.rule == "satisfaction":
            mean = sum(done[0] for done in feedback) / len(feedback)
            self.temper += min(max(mean - 2, -2), 0)

    def sees(self) -> dict[str, list[int]]:
        return {
            "history_items": [item for item, _ in self.history],
            "history_feedback": [f for _, done in self.history for f in done],
            "step": [self.steps],
            "user_features": [int(code) for code in self.data.population.features.codes[self.user]],
        }


def released_categories(data: SessionData) -> list[int]:
    """The table of categories is in the order of ids; it is read in the order of first appearance."""
    order: list[int] = []
    for item in data.log.item:
        if int(item) not in order:
            order.append(int(item))
    order += [item for item in range(data.catalog.n_items) if item not in order]
    found = [0] * len(order)
    for place, item in enumerate(order):
        found[item] = int(data.catalog.category[place])
    return found


def looked_up(matrix: np.ndarray) -> Responses:
    """Responses of people without memory."""
    return lambda user, history, slate: [[float(p) for p in matrix[user, item]] for item in slate]


class Model:
    """The response model in double precision, one user, token and head at a time.

    Args:
        model: whose weights are used, a HistoryModel.
        faults: which faults the responses have.
        weights: of negatives, of each behaviour.
        masks: (user, history) -> dropout's masks of each layer, from the engine.
    """

    def __init__(self, model: Any, faults: frozenset[str], weights: list[float], masks: Any = None) -> None:
        self.w = {name: np.asarray(value, np.float64) for name, value in model.state_dict().items()}
        self.faults, self.weights, self.masks = faults, weights, masks
        self.length, self.rate = model.size.length, model.size.dropout
        self.n_behaviours = model.n_behaviours
        self.item_codes, self.user_codes = model.item_encoder.codes.numpy(), model.user_encoder.codes.numpy()
        self.items = [self.encode("item_encoder", self.item_codes, item) for item in range(-1, len(self.item_codes))]
        self.unit = [item / math.sqrt((item * item).sum()) for item in self.items[1:]]

    def __call__(self, user: int, history: list[Token], slate: list[int]) -> list[list[float]]:
        scoring = self.scoring(user, history[-self.length :])
        result = []
        for k, item in enumerate(slate):
            chances = []
            for f in range(self.n_behaviours):
                logit = float(np.mean(scoring[f] * self.items[item + 1]))
                if "balanced_prior" not in self.faults:
                    logit += math.log(self.weights[f]) if self.weights[f] > 0 else -math.inf
                chance = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
                chances.append(min(max(chance - 0.2 * self.correlation(slate, k), 0.0), 1.0))
            result.append(chances)
        return result

    def correlation(self, slate: list[int], k: int) -> float:
        """Mean over the slate of the product of unit vectors, summed over its dimensions or, the fault, averaged."""
        total = 0.0
        for other in slate:
            product = self.unit[slate[k]] * self.unit[other]
            total += product.mean() if "shrunken_penalty" in self.faults else product.sum()
        return total / len(slate)

    def scoring(self, user: int, history: list[Token]) -> np.ndarray:
        history = [(0, [0] * self.n_behaviours)] * (self.length - len(history)) + history
        done = [d for _, d in history]
        if "scrambled_history" in self.faults:  # F rows of L numbers, one after another, read as L rows of F
            flat = [d[f] for f in range(self.n_behaviours) for d in done]
            done = [flat[t * self.n_behaviours : (t + 1) * self.n_behaviours] for t in range(self.length)]
        tokens = []
        for t, (item, _) in enumerate(history):
            behaviour = self.linear("behaviour", np.array(done[t]))
            tokens.append(np.concatenate([self.items[item] + self.w["position.weight"][t], behaviour]))
        masks = self.masks(user, history) if "dropout" in self.faults else None
        for layer in range(2):
            keys = [self.linear(f"layers.{layer}.key", token) for token in tokens]
            values = [self.linear(f"layers.{layer}.value", token) for token in tokens]
            places = range(self.length) if layer == 0 else [self.length - 1]
            tokens = [
                self.attend(layer, tokens[t], keys[: t + 1], values[: t + 1], t - places[0], masks) for t in places
            ]
        who = self.encode("user_encoder", self.user_codes, user)
        hidden = np.maximum(self.linear("scorer.0", np.concatenate([tokens[-1], who])), 0)
        return np.stack([self.norm("scoring_norm", v) for v in self.linear("scorer.2", hidden).reshape(-1, 64)])

    def attend(
        self, layer: int, own: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray], place: int, masks: Any
    ) -> np.ndarray:
        """What a token becomes that sees the keys and values of those up to itself."""
        name = f"layers.{layer}"
        query = self.linear(f"{name}.query", own)
        heads = []
        for head in range(4):
            part = slice(head * 32, (head + 1) * 32)
            fits = np.exp(np.array([query[part] @ key[part] / math.sqrt(32) for key in keys]))
            shares = fits / fits.sum()
            if masks is not None:
                shares = shares * masks[layer].attention[0, head, place, : len(keys)].numpy() / (1 - self.rate)
            heads.append(sum(share * value[part] for share, value in zip(shares, values, strict=True)))
        attended = self.drop(self.linear(f"{name}.out", np.concatenate(heads)), layer, "attended", place, masks)
        own = self.norm(f"{name}.norm_1", own + attended)
        inner = self.drop(np.maximum(self.linear(f"{name}.inner", own), 0), layer, "inner", place, masks)
        outer = self.drop(self.linear(f"{name}.outer", inner), layer, "outer", place, masks)
        return self.norm(f"{name}.norm_2", own + outer)

    def drop(self, x: np.ndarray, layer: int, where: str, place: int, masks: Any) -> np.ndarray:
        return x if masks is None else x * getattr(masks[layer], where)[0, place].numpy() / (1 - self.rate)

    def encode(self, name: str, codes: np.ndarray, who: int) -> np.ndarray:
        parts = [self.w[f"{name}.identity.weight"][who + 1]]
        for feature in range(codes.shape[1]):
            one_hot = np.zeros(self.w[f"{name}.features.{feature}.weight"].shape[1])
            if who >= 0:
                one_hot[codes[who, feature]] = 1
            parts.append(self.linear(f"{name}.features.{feature}", one_hot))
        widened = [self.linear(f"{name}.widen", self.norm(f"{name}.feature_norm", part)) for part in parts]
        return self.norm(f"{name}.norm", sum(widened))

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.w[f"{name}.weight"] @ x + self.w[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
