"""What every mixer is made of: its call is checked, then come three steps, of which a subclass replaces what it does otherwise.

project(call) -> what the tokens say to the scan (or to attention), a record of the mixer's own
mix_tokens(given, call) -> what comes out of it at every token, and the state to continue from
finish(y, given) -> norm, gate and projection back
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError, check_choice
from ..ops.arguments import MERGES, check_shape
from ..ops.decoding import Decoder, decodes
from ..ops.paths import Paths
from ..packing import has_padding, skip_padding
from ..scans import Grid, Scan
from ..scans import get as get_scan
from .walk import Shares, Walks, sizes_of

NO_STATES = (None, None)
# What a subclass may replace without computing anything else than its base does.
BESIDE = {"__init__", "__doc__", "__module__", "forward", "flops", "extra_repr", "load_state_dict", "State"}


class Call(NamedTuple):
    """What a mixer is called with, checked.

    x: (batch, length, d_model), zero at padding. sizes, extra: of the grid. state, seq_idx: as given.
    raster: the tokens in raster order, (batch, 1, steps) int32, without padding; None: all of them.
    order: the token at each step of each path, ([batch,] paths, steps) int32, without padding; None: all in raster order.
    causal: whether a state can be carried on.
    shares: tables by which each path is given its own tokens, for scans that share them out; then there is no order.
    way: the paths, for mixers that read along them; then there is no order, and seq_idx is that of their steps.
    """

    x: Tensor
    sizes: tuple[int, ...]
    extra: tuple[int, ...]
    state: tuple | None
    seq_idx: Tensor | None
    raster: Tensor | None
    order: Tensor | None
    causal: bool
    shares: Shares | None = None
    way: Paths | None = None


class Mixer(nn.Module):
    """Mixes the tokens of a sequence; says `d_model`, `backend` and `state_shapes`."""

    d_model: int
    backend: str
    causal = True
    # What forward returns beside the tokens.
    State: ClassVar[type]
    # Whether its hidden attention is that of its kind (core/explanation): not of one that does more to its states.
    unrolls = True
    # Decodes one token in one call, from what `weights` says; None: there is no such kernel.
    decoder: Decoder | None = None
    # Whether the mixer has what the decoder knows: one path in raster order.
    one_raster_path = False

    def __init_subclass__(cls, **options):
        """What replaces a part of the mixer that a decoder knows is not what the decoder computes."""
        super().__init_subclass__(**options)
        newer = itertools.takewhile(lambda kind: "decoder" not in vars(kind), cls.__mro__)
        owner = next(kind for kind in cls.__mro__ if "decoder" in vars(kind))
        if any(
            hasattr(owner, name) for kind in newer for name in vars(kind).keys() - BESIDE if not name.startswith("__")
        ):
            cls.decoder = None

    def forward(
        self, x: Tensor, grid: Grid | tuple[int, ...] | None = None, state: tuple | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, tuple | None]:  # fmt: skip
        """Mix the tokens.

        Args:
            x: (batch, length, d_model).
            grid: the tokens' grid, or its sizes; None: (length,).
            state: what the call on the piece before this one returned; None: the sequence begins here.
            seq_idx: (batch, length), integer: nothing reaches across a change of it (packing); negative at padding, which no
                path visits: the state is the one after each row's last real token. A state given goes on with the first real
                token, whatever its number.

        Returns:
            (batch, length, d_model), for merge "none" (batch, paths, length, d_model), and the state to continue from, None
            where the mixer is not causal: anything but one path in raster order, or a convolution on the grid.

        Raises:
            UserError: tokens, grid, state or seq_idx that do not fit the mixer or one another.
        """
        if self.one_raster_path and grid is None and seq_idx is None and self.decoder is not None:
            found = self.decode(x, state) if decodes(x, self.backend) else None
            if found is not None:
                return found
        call = self.call(x, grid, state, seq_idx)
        given, y, after = self.mixed(call)
        return self.finish(y, given), after if call.causal else None

    def select(
        self, x: Tensor, grid: Grid | tuple[int, ...] | None = None, state: tuple | None = None, seq_idx: Tensor | None = None
    ) -> NamedTuple:  # fmt: skip
        """What the scan (or attention) is given for these tokens, by token; arguments as of forward."""
        return self.project(self.call(x, grid, state, seq_idx, share=False))

    def mixed(self, call: Call) -> tuple[NamedTuple, Tensor, tuple | None]:
        """What `finish` meets, and what `mix_tokens` returns."""
        given = self.project(call)
        return given, *self.mix_tokens(given, call)

    def project(self, call: Call) -> NamedTuple:
        """What the tokens say to the scan (or to attention)."""
        raise NotImplementedError

    def mix_tokens(self, given: NamedTuple, call: Call) -> tuple[Tensor, tuple | None]:
        """What comes out of the scan at every token, (batch, [paths,] length, ...), and the state to continue from."""
        raise NotImplementedError

    def finish(self, y: Tensor, given: NamedTuple) -> Tensor:
        """From what came out of the scan to (batch, [paths,] length, d_model)."""
        raise NotImplementedError

    def state_shapes(self, batch: int) -> tuple:
        """A State of so many sequences with a shape, as check_shape takes it, in place of each tensor."""
        raise NotImplementedError

    def call(self, x: Tensor, grid, state: tuple | None, seq_idx: Tensor | None, share: bool = True) -> Call:
        """The call, checked; `share` False: with an order, by token, whatever saves work."""
        check_shape("x", x, (None, None, self.d_model), note="")
        check_shape("seq_idx", seq_idx, (x.shape[0], x.shape[1]), integer=True, note="")
        if isinstance(grid, tuple | list) and any(size < 0 for size in grid):
            raise UserError("a grid has no negative sizes", given=grid, allowed="sizes such as (14, 14)")
        self._check_state(state, x.shape[0])
        sizes, extra = sizes_of(grid, x.shape[1])
        raster = None
        if seq_idx is not None and has_padding(seq_idx):
            raster, x = skip_padding(None, seq_idx), x.masked_fill((seq_idx.long() < 0)[..., None], 0)
        return Call(x, sizes, extra, state, seq_idx, raster, raster, self.causal)

    def _check_state(self, state: tuple | None, batch: int) -> None:
        if state is None:
            return
        if not self.causal:
            raise self._not_causal()
        shapes = self.state_shapes(batch)
        if not isinstance(state, type(shapes)):
            raise UserError(
                f"state must be what the call on the piece before returned, a {type(shapes).__name__}",
                given=type(state).__name__,
            )
        for name, shape, part in zip(shapes._fields, shapes, state, strict=True):
            check_shape(f"state.{name}", part, shape, note="")

    def _not_causal(self) -> UserError:
        return UserError(
            "a state can only be carried on by what is causal", given=self.extra_repr(),
            allowed="one path in raster order without a convolution on the grid; causal attention",
        )  # fmt: skip

    def weights(self) -> tuple | None:
        """What the decoder reads; None where it does not know the mixer, or its layers do more than compute."""
        return None

    def decode(self, x: Tensor, state: tuple | None) -> tuple[Tensor, tuple] | None:
        """forward, of one token that `decodes` says yes to, in one call of the decoder; None where that does not know the case."""
        weights = self.weights()
        found = None if weights is None else self.decoder.kernel.decode(x, weights, state or NO_STATES)
        return None if found is None else (found[0], self.State(*found[1]))

    @staticmethod
    def decode_layers(
        mixers: Sequence[Mixer], hidden: Tensor, norms: Sequence[tuple[Tensor, float]], states: Sequence[tuple | None]
    ) -> tuple[Tensor, Tensor, list] | None:
        """One such token through the mixers of a stack's layers in one call: hidden, residual and states (core/stack.py).

        Args:
            norms: the weight before each mixer, and what is added to the mean square.
        """
        first, weights = mixers[0], [mixer.weights() for mixer in mixers]
        if None in weights or any(m.decoder is not first.decoder or m.backend != first.backend for m in mixers):
            return None
        found = first.decoder.layers(hidden, weights, norms, [state or NO_STATES for state in states], first.backend)
        return None if found is None else (*found[:2], [first.State(*state) for state in found[2]])


class PathMixer(Mixer):
    """A mixer that visits its tokens in the order of a scan.

    Args:
        scan: a mode's name, several joined with "+", or a Scan.
        axes: number of grid axes, where the scan's number of paths depends on it.
        merge: "sum" or "mean" over the paths, or "none".
    """

    # Whether the steps after the projection go along each path, (paths * batch, steps, ...), for all of which the parameters are
    # the same: what a token says is then put in order once, and y at its tokens once.
    reads_along = False

    def __init__(self, scan: str | Scan, axes: int, merge: str):
        super().__init__()
        check_choice("merge", merge, MERGES)
        self.scan = get_scan(scan) if isinstance(scan, str) else scan
        self.paths, self.axes, self.merge = self.scan.paths(axes), axes, merge
        self._walks = Walks(self.scan, axes, type(self).__name__)

    def call(self, x: Tensor, grid, state: tuple | None, seq_idx: Tensor | None, share: bool = True) -> Call:
        call = super().call(x, grid, state, seq_idx)
        walk = self._walks.over(*self._walks.grid(x, grid), x.device)
        causal = self.causal and walk.order is None
        if state is not None and not causal:
            raise self._not_causal()
        if share and walk.shares is not None and seq_idx is None and self.shares_tokens():
            return call._replace(causal=False, shares=walk.shares)
        order = walk.order if call.raster is None else skip_padding(walk.order, seq_idx)
        if not share or not self.reads_along or walk.order is None:
            return call._replace(order=order, causal=causal)
        order = order if order.dim() == 3 else order[None]
        way = Paths(order, seq_idx, x.shape[0], self.paths, x.shape[1], x.device)
        seq_idx = None if seq_idx is None else way.visit(seq_idx[:, None].long())
        return call._replace(order=None, causal=False, seq_idx=seq_idx, way=way)

    def shares_tokens(self) -> bool:
        """Whether paths that share the tokens out are each given their own, which saves work; then `mix_tokens` puts them back."""
        return False

    def _visits(self, grid: Grid | tuple[int, ...]) -> tuple[int, int]:
        """Tokens of a grid, and steps over all paths."""
        sizes, extra = sizes_of(grid, 0)
        return math.prod(sizes) + len(extra), self._walks.over(sizes, extra, torch.device("cpu")).visits

    def extra_repr(self) -> str:
        return f"scan={self.scan}, paths={self.paths}, merge={self.merge}"
