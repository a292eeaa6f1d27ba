"""Controls that serve slates directly: what any method must beat, and what none can."""
