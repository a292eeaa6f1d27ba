"""Pages, figures and recorded sessions; one template and one style."""

from rapport._moved import moved

__getattr__ = moved(__name__)
