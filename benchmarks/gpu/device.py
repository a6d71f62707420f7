"""Where the cases run: a card, or a stand-in for it that has no numbers to show but goes through every line.

"cuda": a card. "interpret": the CPU, kernels in Triton's interpreter, sizes so small that every case takes seconds. "meta":
tensors without numbers, for finding out which kernels a case would launch on a card; who uses it sees to their launch.
"""

from __future__ import annotations

import os
from typing import NamedTuple

KINDS = ("cuda", "interpret", "meta")


class Device(NamedTuple):
    """kind: of KINDS. name: PyTorch's."""

    kind: str
    name: str

    @property
    def small(self) -> bool:
        return self.kind == "interpret"

    def pick(self, real, small):
        """The size for a card, or the one for the interpreter."""
        return small if self.small else real


def prepare(kind: str) -> Device:
    """The device for this process; before Triton is imported, which decides then whether it interprets."""
    if kind == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    from ...core.ops import backends

    if kind == "interpret":
        torch.set_num_threads(1)
    if kind != "cuda":  # there is one set of kernels to exercise here, whatever device the tensors are on
        automatic = backends._automatic

        def kernels(device: str, dtype: torch.dtype) -> tuple[str, str]:
            found = automatic(device, dtype)
            return ("gpu", "stand-in for a card") if dtype in backends.KERNEL_DTYPES else found

        backends._automatic, backends._interpreting = kernels, lambda: True
    return Device(kind, {"cuda": "cuda", "interpret": "cpu", "meta": "meta"}[kind])


def use_kernels(model):
    """The model with backend="gpu" in every mixer: the CPU's quick way for one token would pass by the kernels."""
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "gpu"
    return model
