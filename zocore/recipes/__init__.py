"""The papers' runs as files: settings, and what they are predicted to cost."""
