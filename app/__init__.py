"""The app: zeroth-order fine-tuning in a browser. `python -m app` starts it; `page.py` is the page to read first.

Installed, this folder is the package `zocore_app`, as `app` is anybody's name; its modules still import from `app`.
"""

import sys

sys.modules.setdefault("app", sys.modules[__name__])
