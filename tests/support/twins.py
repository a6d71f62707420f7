"""A mixer in the dtype under test, and its twin in float64 on the reference backend, which says what is right."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor

from polymamba.core.mixers import get

CHANNELS = 12
KINDS = {
    "mamba": ("mamba", {}),
    "mamba, one set": ("mamba", {"parameters": "shared", "d_conv": 3, "bias": True}),
    "mamba, a decay each": ("mamba", {"parameters": "decay", "conv_bias": False}),
    "mamba, learned norms": ("mamba", {"norms": "learned", "gate": False, "dt_rank": 4}),
    "mamba, norms": ("mamba", {"norms": "weightless", "conv": "none", "dt_rank": 4}),
    "mamba2": ("mamba2", {"ngroups": 2, "headdim": 4}),
    "mamba2, an mlp beside": ("mamba2", {"d_ssm": 16, "headdim": 8, "D_has_hdim": True, "norm_before_gate": True}),
    "mamba2, no norm": ("mamba2", {"headdim": 6, "rmsnorm": False, "dt_limit": (0.01, 0.5), "d_conv": 2}),
    "mamba3": ("mamba3", {"ngroups": 2, "headdim": 4}),
    "mamba3, normed": ("mamba3", {"headdim": 6, "is_outproj_norm": True, "A_activation": "softplus", "rope_fraction": 1.0}),
    "mamba3, several inputs": ("mamba3", {"headdim": 6, "is_mimo": True, "mimo_rank": 3}),
    "s4d": ("s4d", {}),
    "attention": ("attention", {"num_heads": 4, "num_heads_kv": 2, "rotary_fraction": 0.7}),
    "attention, convolved": ("attention", {"num_heads": 3, "d_conv": 3, "mlp_dim": 256}),
}  # fmt: skip


class Twins:
    """`made` (of a dtype, on the backend "auto") and `exact` (float64, "reference") with the same weights.

    Args:
        kind: one of KINDS.
        dtype: of made's parameters.
        seed: of the weights.
        options: further arguments of the mixer.
    """

    def __init__(self, kind: str, dtype: torch.dtype = torch.float32, seed: int = 0, **options):
        torch.manual_seed(seed)
        name, chosen = KINDS[kind]
        states = {} if name == "attention" else {"d_state": 6}
        self.made = get(name)(CHANNELS, **states | chosen | options)
        with torch.no_grad():
            for parameter in self.made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.made = self.made.to(dtype)
        self.exact = copy.deepcopy(self.made).double()
        self.exact.backend = "reference"
        self.keeps_keys = name == "attention"

    def parameters(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of made and of exact, in one order."""
        return list(self.made.parameters()), list(self.exact.parameters())

    def alone(self, x: Tensor, state) -> tuple[Tensor, object]:
        """What is right for one sequence, (1, length, channels) in float64, from a state."""
        return self.exact(x, state=state)


def sequences_of(seq_idx: list[int] | None, length: int) -> list[list[int]]:
    """The tokens of each sequence of a row, in order: a new one begins where the number changes; a negative one is padding."""
    if seq_idx is None:
        return [list(range(length))]
    real = [token for token in range(length) if seq_idx[token] >= 0]
    return [list(tokens) for _, tokens in itertools.groupby(real, key=lambda token: seq_idx[token])]


def error(found: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Norm of the difference over the norm of what is right, or over `floor` where that is larger."""
    found, expected = found.detach().double(), expected.detach().double()
    assert found.shape == expected.shape, (tuple(found.shape), tuple(expected.shape))
    return float((found - expected).norm() / max(float(expected.norm()), floor, 1e-30)) if found.numel() else 0.0
