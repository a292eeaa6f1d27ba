"""Custom logs: from data frames, or from files that a manifest describes."""
