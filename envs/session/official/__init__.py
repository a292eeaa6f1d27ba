"""The official profile: LERL's released environment, rule for rule, with the user model it was fitted with."""
