"""How users respond to slates: the protocol, looked-up tables, and the user model fitted to a log."""

from rapport._moved import moved

__getattr__ = moved(__name__)
