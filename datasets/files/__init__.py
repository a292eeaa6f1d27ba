"""Files: archives, downloads, CSV tables, caches, atomic writes."""

from rapport._moved import moved

__getattr__ = moved(__name__)
