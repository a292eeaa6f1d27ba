"""KuaiRand: Pure, 1K and 27K."""

from rapport._moved import moved

__getattr__ = moved(__name__)
