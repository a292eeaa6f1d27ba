"""The session engine over looked-up answers, compiled by numba; the same to the last bit."""
