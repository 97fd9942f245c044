"""The installed app's front door: the package `zocore_app`, which holds `app`, a name too common to take for itself."""

import sys
from pathlib import Path


def main() -> None:
    """Start the app, which lies inside this package; in an editable install it is the clone's."""
    here = Path(__file__).parent
    home = here if (here / "app").is_dir() else here.parents[1]
    sys.path.insert(0, str(home))
    from app.__main__ import main as start

    start()
