"""One seed for every global random generator: any that PyTorch takes, where Lightning's function takes those below 2^32 alone."""

from __future__ import annotations

import os
import random


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices), and tells Lightning's worker processes."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries such as timm draw from the global generator
    torch.manual_seed(seed)
    os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"] = str(seed), "1"
