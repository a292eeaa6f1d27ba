"""Gymnasium environments over :mod:`rapport.datasets`. They know no agent."""
