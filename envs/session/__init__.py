"""Recommendation sessions: a batch-first engine, response models, quit rules, and their Gymnasium environments."""
