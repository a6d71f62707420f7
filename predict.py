"""Lets a trained language model go on with a text: python predict.py ckpt=runs/nlp/mamba_lm/<run> prompt="def ".

With explain=attribution it draws what a run's answers rest on.
"""

import sys

from polymamba.engine.command_line.main import main

if __name__ == "__main__":
    sys.exit(main(job="predict"))
