"""User satiation: how a user tires of watching, and the parameters fitted to the log."""

from rapport._moved import moved

__getattr__ = moved(__name__)
