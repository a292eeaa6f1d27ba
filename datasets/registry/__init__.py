"""The data sets that Rapport knows by name: fetch, check, load."""
