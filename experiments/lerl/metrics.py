"""LERL's three figures (arXiv 2601.19585, section 5), and how varied sessions were."""

from __future__ import annotations

from rapport.experiments.results.metrics import Metric

T_INT = Metric("T_int", "slates", 2, numerator="length")
"""Mean number of slates before the user leaves."""
R_CUM = Metric("R_cum", "summed click rate", 2, numerator="return")
"""Mean over sessions of the summed reward."""
R_SIN = Metric("R_sin", "click rate", 3, numerator="return", denominator="length")
"""Total reward over total slates."""
METRICS = (T_INT, R_CUM, R_SIN)
COVERAGE = Metric("coverage", "categories", 2, numerator="coverage")
INTRA = Metric("within", "diversity", 2, numerator="intra")
BETWEEN = Metric("between", "diversity", 2, numerator="between")
VARIETY = (COVERAGE, INTRA, BETWEEN)
