"""python -m zocore, and the command `zocore`: see `cli.py`."""

import os
import sys


def main() -> int:
    """Run one command and return its exit status."""
    # read when torch is loaded: threads that spin while they wait starve one another on a machine that has other work
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from zocore import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
