"""The batch-first session engine: slates in; feedback, budget and endings out, for B users at once."""
