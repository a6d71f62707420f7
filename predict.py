"""Asks a trained model: python predict.py ckpt=runs/<domain>/<model>/<run> and what its domain takes (--help)."""

import sys

from polymamba.engine.command_line.main import main

if __name__ == "__main__":
    sys.exit(main(job="predict"))
