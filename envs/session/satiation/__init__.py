"""User satiation: a response model, a quit rule, and their parameters fitted to a log."""
