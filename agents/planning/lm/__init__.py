"""The embedded planner: what a small language model learns from, and its training by policy gradient."""
