"""Where the project and the data beside it lie."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("ZOCORE_SHARED", ROOT.parent / "shared"))
RECORDED = ROOT / "app" / "recorded" / "toy" / "events.jsonl"
