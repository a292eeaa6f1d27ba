"""The registry of data sets by name: fetch, check, load."""
