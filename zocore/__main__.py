"""python -m zocore: see `cli.py`."""

import sys

from zocore.cli import main

sys.exit(main())
