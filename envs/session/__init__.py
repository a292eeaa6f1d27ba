"""Recommendation sessions: one batch-first engine, what users do (response models) and when they leave (quit rules)."""
