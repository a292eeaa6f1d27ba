"""Making the embedded planner model, and saying what it can do."""
