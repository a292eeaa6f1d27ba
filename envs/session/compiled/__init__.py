"""The session engine over looked-up responses, compiled by numba; equal to the NumPy engine to the last bit."""
