"""Response models: what a user does with a slate."""
