"""Response models: what a user does with a slate."""

from rapport._moved import moved

__getattr__ = moved(__name__)
