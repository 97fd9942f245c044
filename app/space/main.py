"""The entry of a ZeroGPU Space: this folder's app, for strangers, with the GPU lent by the call."""

import os

import spaces  # noqa: F401 - comes before anything that touches CUDA

os.environ.setdefault("ZOCORE_HOSTED", "1")
os.environ.setdefault("ZOCORE_DRIVER", "zerogpu")
os.environ.setdefault("ZOCORE_HOST", "0.0.0.0")
os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")  # only the Space's own proxy reaches this server

from app.__main__ import main

if __name__ == "__main__":
    main()
