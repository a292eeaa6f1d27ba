"""What experiments found: files, statistics and tables."""

from rapport._moved import moved

__getattr__ = moved(__name__)
