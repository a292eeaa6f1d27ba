"""Low-level policies: state encoder, hyper-actions, Plackett-Luce slates and pretraining on the log."""

from rapport.agents.policies.encoder import EncoderSettings, StateEncoder
from rapport.agents.policies.hyper_action import HyperActionEnv, allowed_items, best_items
from rapport.agents.policies.plackett_luce import PlackettLuce, PlackettLucePolicy
from rapport.agents.policies.score import score_items, score_pairs
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.agents.policies.warm_start import WarmStart

__all__ = [
    "EncoderSettings",
    "HyperActionEnv",
    "PlackettLuce",
    "PlackettLucePolicy",
    "SlatePolicy",
    "StateEncoder",
    "WarmStart",
    "allowed_items",
    "best_items",
    "score_items",
    "score_pairs",
]
