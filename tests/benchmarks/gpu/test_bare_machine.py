"""The GPU kernels and what measures them on a machine that has PyTorch and Triton and little else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BARE = """
import sys, types

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

NAMES = ("numba", "llvmlite", "hydra", "omegaconf", "lightning", "pytorch_lightning", "monai", "torchmetrics", "torchdata",
         "transformers", "einops", "pytest", "matplotlib", "rich", "mamba_ssm", "causal_conv1d")
sys.meta_path.insert(0, Missing())
polymamba = types.ModuleType("polymamba")
polymamba.__path__ = [ROOT]
sys.modules["polymamba"] = polymamba
"""
RUN = """
import torch
from polymamba.core import Mamba, Mamba2

for kind, options in ((Mamba, {}), (Mamba2, {"headdim": 8})):
    mixer = kind(8, d_state=4, backend="gpu", **options)
    x = torch.randn(1, 2, 8, requires_grad=True)
    y, _ = mixer(x)
    y.sum().backward()
    assert x.grad.isfinite().all() and y.shape == x.shape
from polymamba.benchmarks.gpu import cases_models, cases_other, cases_scan, checks, checks_edges, checks_mixers, machine, steps
from polymamba.domains.nlp.models.language_model import LanguageModel
from polymamba.domains.vision.models.vim import Vim
"""


def test_the_kernels_run_without_numba_and_everything_is_importable():
    code = BARE.replace("ROOT", repr(str(ROOT))) + RUN
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
