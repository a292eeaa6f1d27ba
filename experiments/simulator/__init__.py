"""How far a simulator can be trusted: its card, beside counting and other models."""
