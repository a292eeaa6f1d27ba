"""The batch-first session engine: slates in, clicks, patience and departures out, for B users at once."""
