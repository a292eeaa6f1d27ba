"""User satiation: how a user tires of watching, and the parameters fitted to the log."""
