"""The pages of `rapport run`, `reproduce lerl` and `planner`, and what they say was found."""
