"""Tests the weights of a run: python eval.py ckpt=runs/vision/vim/<run>."""

import sys

from polymamba.engine.command_line.main import main

if __name__ == "__main__":
    sys.exit(main(job="evaluate"))
