"""What environments of any kind share: the check of keyword arguments, and preparation ahead of time."""
