"""``python -m rapport``: the command line."""

import sys

from rapport.experiments.cli import main

sys.exit(main())
