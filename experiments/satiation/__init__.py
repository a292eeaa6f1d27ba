"""Satiation measured in a log, and whether agents differ where it is built in."""
