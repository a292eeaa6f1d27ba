"""Rendering of sessions, as text and as images."""
