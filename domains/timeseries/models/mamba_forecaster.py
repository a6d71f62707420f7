"""A plain stack of Mamba layers over patches, and SiMBA (arXiv 2403.15360): the same with EinFFT between the channels.

What the other models' ideas are worth beyond Mamba itself is seen beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.initialisation import scale_output_projections
from ....core.mlp import GatedMLP
from ....core.ranges import Count, Depth, Rate, Size, checked
from ....core.scans import Scan
from .classifier import SeriesClassifier
from .einfft import EinFFT
from .forecaster import Backend, Forecaster, described, sized
from .instance_norm import InstanceNorm, NoNorm
from .mixing import mixer as make_mixer
from .mixing import of_layer
from .patches import FlattenHead, check_patches, patch_count, patched

SIZES = {
    "micro": {"d_model": 32, "n_layer": 2},
    "base": {"d_model": 128, "n_layer": 3},
    "large": {"d_model": 256, "n_layer": 6},
}
MIXER_OPTIONS = {
    "mamba": {"d_state": 16},
    "mamba2": {"d_state": 32, "headdim": 16},
    "mamba3": {"d_state": 32, "headdim": 16},
}
ChannelMixer = Literal["none", "mlp", "einfft"]
CHANNEL_MIXERS = {
    "none": lambda d_model: None,
    "mlp": lambda d_model: GatedMLP(d_model, 2 * d_model, multiple_of=1),
    "einfft": EinFFT,
}


class Layer(nn.Module):
    """x + mixer(norm(x)), and where there is one x + channel mixer(norm2(x)); dropout of what is added."""

    def __init__(self, d_model: int, mixer: nn.Module, channel_mixer: nn.Module | None, dropout: float):
        super().__init__()
        self.norm, self.mixer, self.dropout = nn.RMSNorm(d_model, 1e-5), mixer, nn.Dropout(dropout)
        self.mixes_channels = channel_mixer is not None
        if channel_mixer is not None:
            self.norm2, self.channel_mixer = nn.RMSNorm(d_model, 1e-5), channel_mixer

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        x = x + self.dropout(self.mixer(self.norm(x))[0])
        return x + self.dropout(self.channel_mixer(self.norm2(x))) if self.mixes_channels else x


class MambaForecaster(Forecaster):
    """Patches, layers of core's Mamba, Mamba-2 or Mamba-3, a linear head; `features` are (batch, variables, patches, d_model).

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window.
        mark_features: calendar features a step, added to the tokens; 0: none.
        d_model, n_layer: channels of a token, layers.
        patch_len, stride: steps of a patch, and between patches; the first value is repeated until the first patch is full.
        mixer: "mamba", "mamba2" or "mamba3". mixer_options: its class's own, other than MIXER_OPTIONS.
        channel_mixer: behind each mixer: "none", "mlp" (gated) or "einfft", which makes it SiMBA.
        joint: a token holds the patch of all variables, which are read together; `features` have one in their place. Else
            each variable is a sequence of its own.
        scan: the way over the patches.
        dropout: of what layers add.
        use_norm: take each window's mean and deviation out first.
        backend: of the scans.
    """

    reads_marks = True
    tokens_are = "patches"

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size,
        mark_features: Count = 0,
        d_model: Size = 128,
        n_layer: Depth = 3,
        patch_len: Size = 16,
        stride: Size = 8,
        mixer: Literal["mamba", "mamba2", "mamba3"] = "mamba",
        mixer_options: Mapping[str, Any] | None = None,
        channel_mixer: ChannelMixer = "none",
        joint: bool = False,
        scan: str | Scan = "raster",
        dropout: Rate = 0.1,
        use_norm: bool = True,
        backend: Backend = "auto",
    ):
        super().__init__(lookback, horizon, variables, mark_features)
        check_patches(lookback, patch_len)
        check_choice("mixer", mixer, MIXER_OPTIONS)
        check_choice("channel_mixer", channel_mixer, CHANNEL_MIXERS)
        self.patch_len, self.stride, self.joint = patch_len, stride, joint
        self.before = (patch_len - lookback) % stride
        self.revin_layer = InstanceNorm() if use_norm else NoNorm()
        self.embedding = nn.Linear(patch_len * (variables if joint else 1), d_model)
        if mark_features:
            self.mark_embedding = nn.Linear(patch_len * mark_features, d_model, bias=False)
        options = {**MIXER_OPTIONS[mixer], **(mixer_options or {})}
        self.layers = nn.ModuleList()
        for index in range(n_layer):
            block = make_mixer(mixer, d_model, of_layer(scan, index), backend, **options)
            self.layers.append(Layer(d_model, block, CHANNEL_MIXERS[channel_mixer](d_model), dropout))
        self.norm_f = nn.RMSNorm(d_model, 1e-5)
        inputs = d_model * patch_count(lookback + self.before, patch_len, stride)
        self.head = FlattenHead(inputs, horizon * (variables if joint else 1))
        scale_output_projections(self.layers, n_layer, 1 if channel_mixer == "none" else 2)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, variables or 1, patches, d_model)."""
        tokens = self.embedding(self._cut(x) if self.joint else self._patched(x))
        if marks is not None:
            tokens = tokens + self.mark_embedding(self._cut(marks.to(x.dtype)))
        said = tokens.flatten(0, 1).to(self.norm_f.weight.dtype)  # under autocast the stream stays in float32
        for layer in self.layers:
            said = layer(said)
        return self.norm_f(said).unflatten(0, tokens.shape[:2])

    def decode(self, features: Tensor) -> Tensor:
        """(batch, variables or 1, patches, d_model) -> (batch, variables, horizon)."""
        return self.head(features).unflatten(2, (-1, self.horizon)).flatten(1, 2)

    def _patched(self, x: Tensor) -> Tensor:
        return patched(x, self.patch_len, self.stride, before=self.before)

    def _cut(self, x: Tensor) -> Tensor:
        """(batch, length, series) to patches of all series, (batch, 1, patches, series * patch_len)."""
        return self._patched(x).transpose(1, 2).flatten(2)[:, None]


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "base", "large"] | None = None,
    d_model: Size | None = None,
    n_layer: Depth | None = None,
    patch_len: Size = 16,
    stride: Size = 8,
    mixer: Literal["mamba", "mamba2", "mamba3"] = "mamba",
    mixer_options: Mapping[str, Any] | None = None,
    channel_mixer: ChannelMixer = "none",
    joint: bool = False,
    dropout: Rate = 0.1,
    use_norm: bool = True,
    backend: Backend = "auto",
) -> MambaForecaster | SeriesClassifier:
    """A plain Mamba forecaster, or with channel_mixer="einfft" SiMBA, for a data set.

    Args:
        describe: lookback, horizon, variables, mark_features (left out: none); with num_classes it becomes a classifier.
        size: a row of SIZES, None: what the data ask for; d_model, n_layer: other than the size's.
        scan, patch_len, stride, mixer, mixer_options, channel_mixer, joint, dropout, use_norm, backend: MambaForecaster's.
    """
    given = described(describe, "variables", "mark_features", classifies=True)
    model = MambaForecaster(
        **given, **sized(SIZES, size, describe, d_model=d_model, n_layer=n_layer), patch_len=patch_len, stride=stride,
        mixer=mixer, mixer_options=mixer_options, channel_mixer=channel_mixer, joint=joint, scan=scan or "raster",
        dropout=dropout, use_norm=use_norm, backend=backend,
    )  # fmt: skip
    if "num_classes" not in describe:
        return model
    channels = model.norm_f.weight.shape[0] * (1 if joint else model.variables)
    return SeriesClassifier(model, channels, describe["num_classes"], dropout)
