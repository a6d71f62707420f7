"""PointMamba (arXiv 2402.10739): clouds of points as tokens of neighbourhoods, read along one space-filling curve after another.

Farthest points are centres, the points nearest to each a token; the tokens in the order of each curve, scaled and shifted by what
belongs to it, follow one another in one sequence, which plain Mamba layers read once. Parameter names are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn

from ....core.initialisation import scale_output_projections
from ....core.linear import normalised
from ....core.mixers.mamba import Mamba
from ....core.ranges import Depth, Positive, Rate, Size, checked
from ....core.stack import ResidualBlock, make_norm
from .backbone import size_for
from .point_groups import GroupEncoder, Groups, check_orders, serialise

SIZES = {
    "micro": {"trans_dim": 96, "depth": 4, "encoder_width": 32, "num_group": 32, "group_size": 16, "head_width": 128},
    "full": {"trans_dim": 384, "depth": 12, "num_group": 64, "group_size": 32},
}


class PointMamba(nn.Module):
    """A classifier of point clouds.

    Args:
        trans_dim, depth: width and number of layers.
        num_classes: outputs.
        num_group, group_size: tokens of a cloud before it is repeated for each order, and points of each.
        encoder_width: see GroupEncoder. head_width: of the head's two hidden layers.
        orders: names of point_groups.ORDERS; the tokens are read once in each.
        cell: side of the cells whose curve is followed.
        use_cls_token: a token behind all others; the head reads it and the mean. Else the mean (avg_head), the largest (max_head).
        rms_norm: instead of layer norm.
        drop_path: stochastic depth of the last layer, rising from none. drop_out, head_drop: of the stream after each layer; in
            the head.
        d_state, backend: the mixers'.
        compat: "published": points within 0.03 of the origin are no centres, and curves are as deep as the batch needs.
    """

    @checked
    def __init__(
        self,
        trans_dim: Size = 384,
        depth: Depth = 12,
        num_classes: Size = 40,
        num_group: Size = 64,
        group_size: Size = 32,
        encoder_width: Size = 128,
        head_width: Size = 256,
        orders: Sequence[str] = ("hilbert", "trans_hilbert"),
        cell: Positive = 0.02,
        use_cls_token: bool = False,
        max_head: bool = False,
        avg_head: bool = True,
        rms_norm: bool = False,
        drop_path: Rate = 0.0,
        drop_out: Rate = 0.0,
        head_drop: Rate = 0.5,
        d_state: Size = 16,
        compat: str | None = None,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        make = {"device": device, "dtype": dtype}
        self.orders, self.cell, self.published = check_orders(tuple(orders), cell), cell, compat == "published"
        self.num_classes, self.use_cls_token = num_classes, use_cls_token
        self.max_head, self.avg_head = max_head, avg_head or not max_head
        self.group_divider = Groups(num_group, group_size, self.published)
        self.encoder = GroupEncoder(trans_dim, encoder_width, **make)
        for number in range(1, len(self.orders) + 1):
            self.register_parameter(f"OrderScale_gamma_{number}", nn.Parameter(torch.ones(trans_dim, **make)))
            self.register_parameter(f"OrderScale_beta_{number}", nn.Parameter(torch.zeros(trans_dim, **make)))
        if use_cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, trans_dim, **make))
            self.cls_pos = nn.Parameter(torch.zeros(1, 1, trans_dim, **make))
        self.pos_embed = nn.Sequential(nn.Linear(3, 128, **make), nn.GELU(), nn.Linear(128, trans_dim, **make))
        kind, rates = ("rms" if rms_norm else "layer"), torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.Module()
        self.blocks.layers = nn.ModuleList(
            ResidualBlock(
                Mamba(trans_dim, d_state=d_state, backend=backend, **make), make_norm(kind, trans_dim, **make),
                drop_path=DropPath(rate) if rate else None, residual_in_fp32=False,
            )
            for rate in rates
        )  # fmt: skip
        self.blocks.norm_f = make_norm(kind, trans_dim, **make)
        self.drop_out = nn.Dropout(drop_out)
        read = 2 if use_cls_token or (self.max_head and self.avg_head) else 1
        sizes = (read * trans_dim, head_width, head_width)
        hidden = [
            layer
            for given, wide in pairwise(sizes)
            for layer in (
                nn.Linear(given, wide, **make),
                nn.BatchNorm1d(wide, **make),
                nn.ReLU(),
                nn.Dropout(head_drop),
            )
        ]
        self.cls_head_finetune = nn.Sequential(*hidden, nn.Linear(head_width, num_classes, **make))
        self._init_weights()

    @property
    def tokens(self) -> int:
        """Tokens of the sequence that a cloud becomes."""
        return len(self.orders) * self.group_divider.num_group + self.use_cls_token

    def forward(self, points: Tensor) -> Tensor:
        """(batch, points, 3), within about 1 of the origin, to class scores (batch, num_classes)."""
        return self.forward_head(self.forward_features(points))

    def forward_features(self, points: Tensor) -> Tensor:
        """(batch, points, 3) to normalised tokens (batch, tokens, trans_dim), those of one order after those of another."""
        groups, centres = self.group_divider(points)
        tokens, positions, order = self.encoder(groups), self.pos_embed(centres), self.order_of(centres)
        x = torch.cat(
            [self._along(tokens, positions, each, number) for number, each in enumerate(order.unbind(1), 1)], 1
        )
        if self.use_cls_token:
            x = torch.cat([x, (self.cls_token + self.cls_pos).expand(len(x), -1, -1)], 1)
        for layer in self.blocks.layers:
            x = self.drop_out(x + layer.drop_path(layer.mixer(normalised(layer.norm, x))[0]))
        return normalised(self.blocks.norm_f, x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What the head reads of the tokens and, unless `pre_logits`, its class scores."""
        if self.use_cls_token:
            read = [x[:, -1], x.mean(1)]
        else:
            read = [x.mean(1)] * self.avg_head + [x.amax(1)] * self.max_head
        x = torch.cat(read, 1)
        return x if pre_logits else self.cls_head_finetune(x)

    def order_of(self, centres: Tensor) -> Tensor:
        """The groups in each of the orders, (batch, orders, groups) int64, from their centres (batch, groups, 3)."""
        return serialise(centres, self.orders, self.cell, self.published)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would harm."""
        ends = ("A_log", "D", "cls_token", "cls_pos")
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in ends}

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of a forward pass (a multiply-add is two), without those that choose centres and neighbours."""
        divider, layers = self.group_divider, [*self.pos_embed, *self.cls_head_finetune]
        linear = [each.weight.numel() for each in layers if isinstance(each, nn.Linear)]
        position, head = sum(linear[:2]), sum(linear[2:])
        mixing = sum(layer.mixer.flops((self.tokens,)) for layer in self.blocks.layers)
        encoding = self.encoder.flops(divider.num_group, divider.group_size)
        return batch * (encoding + 2 * position * divider.num_group + mixing + 2 * head)

    def _along(self, tokens: Tensor, positions: Tensor, order: Tensor, number: int) -> Tensor:
        """Tokens and positions, (batch, groups, channels) each, in an order (batch, groups), with what belongs to it."""
        index = order[..., None].expand_as(tokens)
        gamma, beta = getattr(self, f"OrderScale_gamma_{number}"), getattr(self, f"OrderScale_beta_{number}")
        return tokens.gather(1, index) * gamma + beta + positions.gather(1, index)

    @torch.no_grad()
    def _init_weights(self) -> None:
        for name, each in self.named_parameters(recurse=False):
            nn.init.normal_(each, mean=1.0 if "gamma" in name else 0.0, std=0.02)
        for module in (*self.encoder.modules(), *self.pos_embed, *self.cls_head_finetune):
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        scale_output_projections(self, len(self.blocks.layers))


@checked(group="model")
def build(
    describe: Mapping,
    size: Literal["micro", "full"] | None = None,
    trans_dim: Size | None = None,
    depth: Depth | None = None,
    num_group: Size | None = None,
    group_size: Size | None = None,
    orders: Sequence[str] = ("hilbert", "trans_hilbert"),
    cell: Positive = 0.02,
    use_cls_token: bool = False,
    max_head: bool = False,
    drop_path: Rate = 0.0,
    head_drop: Rate = 0.5,
    d_state: Size = 16,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> PointMamba:
    """A PointMamba for a data set of clouds.

    Args:
        describe: the data set's own description: points (of a cloud), num_classes, model_size.
        size: "micro" or "full"; None: what the data set asks for.
        trans_dim, depth, num_group, group_size: other than the size's.
        The others as of PointMamba.
    """
    chosen = {"trans_dim": trans_dim, "depth": depth, "num_group": num_group, "group_size": group_size}
    sized = size_for(describe, size, SIZES) | {key: value for key, value in chosen.items() if value is not None}
    # A cloud of few points has no more groups than points.
    for key in ("num_group", "group_size"):
        sized[key] = min(sized[key], describe["points"])
    return PointMamba(
        num_classes=describe["num_classes"], orders=orders, cell=cell, use_cls_token=use_cls_token, max_head=max_head,
        drop_path=drop_path, head_drop=head_drop, d_state=d_state, compat=compat, backend=backend, **sized,
    )  # fmt: skip
