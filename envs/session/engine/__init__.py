"""The batch-first session engine: slates in, clicks, patience and departures out, for B users at once."""

from rapport._moved import moved

__getattr__ = moved(__name__)
