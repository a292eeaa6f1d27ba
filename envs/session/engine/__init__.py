"""The batch-first session engine: slates in; feedback, budget and endings out, for B users at once."""

from rapport._moved import moved

__getattr__ = moved(__name__)
