"""A paper's tables, made anew by one command."""
