"""python -m tests: format, lint, types, tests; stops at the first failure. `--all` adds the slow tests."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CODE = ["zocore", "app", "notebooks", "examples", "tests"]
PRESENT = [name for name in CODE if (HERE.parent / name).is_dir()]
PROCESSES = "2"  # the least machine has two cores; more processes than that only share its memory

FAST, ALL = ["-m", "not slow and not soak"], ["-m", "not soak"]
# a page on a busy machine may miss a deadline once; nothing else is tried twice
PATIENT = ["--reruns", "2", "--only-rerun", "playwright.*TimeoutError"]
STEPS = {
    "format": ["ruff", "format", "--check", *PRESENT],
    "lint": ["ruff", "check", *PRESENT],
    "types": ["mypy", *PRESENT],
    "tests": ["pytest", "-q", "-n", PROCESSES, *PATIENT, "tests"],
}


def main(arguments: list[str]) -> int:
    """Run every step and return the status of the first that fails."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    for name, command in STEPS.items():
        extra = (ALL if "--all" in arguments else FAST) if name == "tests" else []
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", *command, *extra], cwd=HERE.parent, env=environment, check=False)
        if done.returncode:
            return done.returncode
    return 0


sys.exit(main(sys.argv[1:]))
