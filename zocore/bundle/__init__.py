"""The bundled model and tasks: a small synthetic world that is rebuilt from a seed."""

from pathlib import Path

ROOT = Path(__file__).parent
MODEL = ROOT / "model"
TASKS = ROOT / "tasks"
