"""KuaiRec, and a synthetic stand-in."""

from rapport._moved import moved

__getattr__ = moved(__name__)
