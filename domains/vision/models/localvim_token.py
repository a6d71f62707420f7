"""LocalVim with a class token in the middle of every path, and without rotary positions (arXiv 2403.09338, its best tiny form)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ....core.scans import Scan
from .backbone import with_names
from .localmamba import LocalMixer, scans_of, searched_directions
from .registration import Variant, register
from .vim import Vim
from .vim import checkpoint_filter_fn as vim_filter_fn


class LocalVimToken(Vim):
    """LocalVim's layers over a Vim's tokens.

    Args:
        directions: for each layer the names of its directions (localmamba.DIRECTIONS); None: `scan` in all of them.
        depth, scan and the rest of `options`: as of Vim.
    """

    def __init__(
        self, *arguments, depth: int = 20, scan: str | Scan = "local_vim", directions: Sequence[Sequence[str]] | None = None,
        **options,
    ):  # fmt: skip
        # Before the modules, which it is not one of.
        object.__setattr__(self, "_scans", scans_of(directions, scan, depth))
        super().__init__(*arguments, depth=depth, scan=self._scans[0], **options)

    def _scan_of(self, layer: int) -> Scan:
        return self._scans[layer]

    @staticmethod
    def _mixer(channels: int, scan: Scan, options: dict) -> LocalMixer:
        kept = ("d_state", "d_conv", "expand", "backend", "device", "dtype")
        return LocalMixer(channels, scan, **{name: options[name] for name in kept})


def checkpoint_filter_fn(state_dict: Mapping, model: LocalVimToken) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, under its names, patches and positions resampled to the model's."""
    return with_names(vim_filter_fn(dict(state_dict), model), ((r"\.([AD])(_log)?_(\d+)$", r".\1_\3\2"),))


register(
    LocalVimToken,
    {
        "localvim_tiny_midcls": Variant(
            "LocalVim-T with a class token: 8.0 million parameters, ImageNet-1k 77.8%.",
            {"embed_dim": 192, "directions": searched_directions("localvim", (192, 20))},
        ),
    },
    checkpoint_filter_fn, 3, first_conv="patch_embed.proj", classifier="head", license="apache-2.0",
    origin_url="https://github.com/hunto/LocalMamba", paper_ids="arXiv:2403.09338",
)  # fmt: skip
