"""Decoding one token: kernels called straight from Python, past the machinery of operators, which costs that of several tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module

import torch
from torch import Tensor

from .transforms import watched

# From more rows than this on, PyTorch's blocked matrix product is faster than reading the matrix row by row.
MOST_ROWS = 4


def direct(x: Tensor, backend: str = "auto") -> bool:
    """Whether a kernel may be called with x straight: a plain CPU tensor, no gradient is recorded, nothing traces or transforms."""
    return (
        not torch.is_grad_enabled()
        and backend in ("auto", "cpu")
        and type(x) is Tensor
        and x.device.type == "cpu"
        and not watched()
    )


def decodes(x: Tensor, backend: str = "auto") -> bool:
    """Whether x is one token of few sequences, (batch, 1, channels), that a kernel of whole layers may be called for."""
    # Sizes are looked at last: a graph that is being traced would take the comparisons for limits of its sizes.
    return (
        direct(x, backend)
        and x.dim() == 3
        and x.shape[1] == 1
        and 0 < x.shape[0] <= MOST_ROWS
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
    )


# Of the convolution and of the scan, float32; None: zeros.
States = tuple[Tensor | None, Tensor | None]


class Decoder:
    """One token through whole mixers in one call of a kernel, all sums in float32.

    The kernel declines what it does not know: gradients, traces, other devices, dtypes or shapes, many sequences. Then the result
    is None, and the operators that the mixer is made of do it: the package's reference.py says how.

    Args:
        package: of the mixer's weights, with the kernel in cpu.py.
    """

    def __init__(self, package: str):
        self.package = package

    def __call__(
        self, x: Tensor, weights: tuple, states: States, in_place: bool = False, backend: str = "auto"
    ) -> tuple[Tensor, States] | None:
        """One mixer.

        Args:
            x: (batch, 1, model channels), float32 or bfloat16, in the dtype of the weights.
            states: where the sequences stand.
            in_place: move the given states on instead of making new ones.
            backend: of the operator.

        Returns:
            (batch, 1, model channels) in x's dtype and the states after the token, or None.
        """
        return self.kernel.decode(x, weights, states, in_place) if decodes(x, backend) else None

    def layers(
        self, hidden: Tensor, weights: Sequence[tuple], norms: Sequence[tuple[Tensor, float]], states: Sequence[States],
        backend: str = "auto",
    ) -> tuple[Tensor, Tensor, list[States]] | None:  # fmt: skip
        """The mixers of several layers: residual = residual + hidden, hidden = mixer(RMSNorm(residual)), each.

        Args:
            hidden: (batch, 1, model channels), as x of one mixer; the residual is zero at first.
            norms: a weight (model channels,) and what is added to the mean square.

        Returns:
            hidden in its dtype, residual in float32, each layer's states; or None.
        """
        return self.kernel.decode_layers(hidden, weights, norms, states) if decodes(hidden, backend) else None

    @cached_property
    def kernel(self):
        """The package's LayerKernel, read when it is first wanted; it does not ask `decodes`."""
        return import_module(".cpu", self.package).kernel
