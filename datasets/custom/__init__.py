"""Anybody's log: data frames, and files that a manifest describes."""
