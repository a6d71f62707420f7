"""EinFFT, SiMBA's mixing of channels (arXiv 2403.15360, section 3.1): a two-layer network on the Fourier transform of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.precision import as_given


class EinFFT(nn.Module):
    """A complex block-diagonal network between a Fourier transform over tokens and blocks of channels and its inverse.

    Parameter names are those of the published code; the first axis of each holds real and imaginary part.

    Args:
        d_model: channels of the tokens, a multiple of `blocks`.
        blocks: of channels, each with weights of its own.
        shrink: what lies nearer to 0 in the network's answer becomes 0, the rest that much smaller.
        deviation: of the weights at the start.
    """

    def __init__(self, d_model: int, blocks: int = 4, shrink: float = 0.01, deviation: float = 0.02):
        super().__init__()
        if d_model % blocks:
            raise UserError("the blocks must divide the channels", given=d_model, allowed=f"a multiple of {blocks}")
        size = d_model // blocks
        self.blocks, self.shrink = blocks, shrink
        for layer in (1, 2):
            weight, bias = torch.randn(2, blocks, size, size), torch.randn(2, blocks, size)
            self.register_parameter(f"complex_weight_{layer}", nn.Parameter(deviation * weight))
            self.register_parameter(f"complex_bias_{layer}", nn.Parameter(deviation * bias))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model), computed in float32 at least."""
        if not x.numel():
            return x  # the transforms refuse an empty batch
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(2, (self.blocks, -1))
        with as_given(x):
            waves = torch.fft.fft2(wide, dim=(1, 2), norm="ortho")
            real, imaginary = (F.relu(part) for part in self._layer(waves.real, waves.imag, 1))
            real, imaginary = (F.softshrink(part, self.shrink) for part in self._layer(real, imaginary, 2))
            answer = torch.fft.ifft2(torch.complex(real, imaginary), dim=(1, 2), norm="ortho").real
        return answer.flatten(2).to(x.dtype)

    def _layer(self, real: Tensor, imaginary: Tensor, number: int) -> tuple[Tensor, Tensor]:
        weight, bias = getattr(self, f"complex_weight_{number}"), getattr(self, f"complex_bias_{number}")

        def times(t: Tensor, part: int) -> Tensor:
            return torch.einsum("...bi,bio->...bo", t, weight[part].to(t.dtype))

        return times(real, 0) - times(imaginary, 1) + bias[0], times(real, 1) + times(imaginary, 0) + bias[1]
