"""KuaiRec, and synthetic data of the same form."""

from rapport._moved import moved

__getattr__ = moved(__name__)
