"""Sessions as data sets of other libraries."""
