"""Which implementation of an operator runs, and why.

Three backends stand behind every operator: "reference" (plain PyTorch, any device and dtype, the definition), "cpu" (Numba) and
"gpu" (Triton). "auto" picks one by device and dtype; an explicit choice that cannot run raises instead of falling back.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

import torch
from torch import Tensor

from ..errors import UserError, check_choice
from .transforms import differentiated

BACKENDS = ("auto", "reference", "cpu", "gpu")
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HAS_TRITON = find_spec("triton") is not None  # asked for here once: torch.compile cannot look through the question


def resolve(
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    tensors: Iterable[Tensor | None] = (),
) -> tuple[str, str]:
    """The backend that runs on `device` for `dtype`, and the reason in words.

    Args:
        tensors: the differentiable arguments of the call: kernels have no forward-mode derivatives, nor torch.func's.

    Raises:
        UserError: unknown backend name, or an explicit backend that cannot run there.
    """
    kind = torch.device(device).type
    check_choice("backend", backend, BACKENDS)
    if backend != "reference" and differentiated(tensors):
        if backend != "auto":
            raise UserError(
                f"backend={backend!r} has no forward-mode derivatives, nor those of torch.func (grad, vjp, jvp, ...)",
                given="a call inside such a transform", allowed="backward and torch.autograd.grad, torch.vmap without them",
                do="backend=auto or backend=reference, which compute them in plain PyTorch",
            )  # fmt: skip
        return "reference", "a derivative is taken that the kernels have no rule for: plain PyTorch"
    if backend == "auto":
        return _automatic(kind, dtype)
    if backend == "cpu" and kind != "cpu":
        raise UserError(
            f"backend='cpu' cannot read tensors on {kind}", given=f"tensors on {kind}", allowed="tensors on the CPU",
            do="backend=auto, or move the tensors to the CPU",
        )  # fmt: skip
    if backend == "gpu" and kind != "cuda" and not _interpreting():
        raise UserError(
            f"backend='gpu' needs CUDA tensors, these are on {kind}", given=f"tensors on {kind}",
            allowed="CUDA tensors (or CPU tensors under TRITON_INTERPRET=1)", do="backend=auto",
        )  # fmt: skip
    if backend == "gpu" and not HAS_TRITON:
        raise UserError(
            "backend='gpu' needs Triton, which is not installed", do="pip install triton, or backend=reference"
        )
    if backend != "reference" and dtype.is_complex:
        raise UserError(
            f"backend={backend!r} has no complex arithmetic",
            given=dtype,
            allowed="real tensors",
            do="backend=reference",
        )
    return backend, "asked for"


def _automatic(kind: str, dtype: torch.dtype) -> tuple[str, str]:
    if dtype not in KERNEL_DTYPES:
        return "reference", f"{dtype} is outside what the kernels compute (float32, bfloat16, float16)"
    if kind == "cpu":
        return "cpu", "tensors are on the CPU: Numba kernels"
    if kind == "cuda" and HAS_TRITON:
        return "gpu", "tensors are on a GPU: Triton kernels"
    return "reference", f"no kernels for device {kind}: plain PyTorch"


def _interpreting() -> bool:
    import os

    return os.environ.get("TRITON_INTERPRET", "0") == "1"
