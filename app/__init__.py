"""The app: zeroth-order fine-tuning in a browser. `python -m app` starts it; `page.py` is the page to read first."""
