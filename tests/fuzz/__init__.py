"""One command that looks for faults: ``python -m tests.fuzz``.

It plays checked steps of every environment, and feeds damaged files, answers and command lines to the public functions.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before NumPy and torch are imported: the processes share the cores
