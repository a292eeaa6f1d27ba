"""User satiation measured in a log, and whether methods differ where it is built in."""
