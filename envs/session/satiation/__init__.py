"""User satiation: a response model, a quit rule, and their parameters fitted to a log."""

from rapport._moved import moved

__getattr__ = moved(__name__)
