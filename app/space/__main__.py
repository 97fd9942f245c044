"""python -m app.space --kind zerogpu|docker --to FOLDER: assemble a Space that can be pushed as it is."""

import argparse
import sys
from pathlib import Path

from app.space.assemble import KINDS, assemble
from zocore.errors import InputError


def main() -> None:
    """Read the options, write the folder and say what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m app.space", description="assemble a Space, ready to push")
    parser.add_argument("--kind", choices=sorted(KINDS), required=True, help="whose GPU: lent by the call, or its own")
    parser.add_argument("--to", type=Path, required=True, help="a new folder, or the clone of a new Space")
    options = parser.parse_args()
    try:
        count = assemble(options.kind, options.to)
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(f"{count} files in {options.to}: commit and push them to the Space's repository")


if __name__ == "__main__":
    main()
