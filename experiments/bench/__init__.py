"""Speed of environments, training, planners and data conversion, each beside a named reference; memory."""
