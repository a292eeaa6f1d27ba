"""What experiments found: files, statistics and tables."""
