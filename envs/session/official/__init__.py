"""The official profile: LERL's released environment, rule for rule, with the user model it was fitted with."""

from rapport._moved import moved

__getattr__ = moved(__name__)
