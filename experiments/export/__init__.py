"""Sessions as data sets for other libraries."""
