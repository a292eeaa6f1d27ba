"""LERL: its rows, trainings, evaluations, studies and pages."""
