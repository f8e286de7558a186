"""Run the command line as ``python -m braggshot``."""

import sys

from braggshot.cli import main

sys.exit(main())
