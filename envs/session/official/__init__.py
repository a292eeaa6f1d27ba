"""The official profile: LERL's released environment, rule for rule, and the user model it uses."""

from rapport._moved import moved

__getattr__ = moved(__name__)
