"""What environments of every kind share."""
