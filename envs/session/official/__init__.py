"""The official profile: LERL's released environment, rule for rule, and the user model it uses."""
