"""Trains a model: python train.py domain=vision model=vim scan=cross (--help shows everything that may be typed)."""

import sys

from polymamba.engine.command_line.main import main

if __name__ == "__main__":
    sys.exit(main())
