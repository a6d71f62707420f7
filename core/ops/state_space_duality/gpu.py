"""State space duality on a GPU: Triton kernels, for bfloat16, float16 and float32, with states and sums in float32.

The length is cut into chunks. Three kernels run forward: what each chunk adds to the state, all chunks at once; the short
chain from chunk to chunk; the outputs, all chunks at once. Backward runs the first two again, and once more from the end,
then the gradients of x and of the decays head by head, and those of B and C group by group.

Nothing is added atomically: sums over heads are made by one program in order, or written apart and summed in a fixed order,
so results repeat bit for bit. There is one launch configuration a kernel and dtype, no autotuning.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..blocks import cdiv, next_power_of_2
from .gpu_backward_kernels import grad_bc_kernel, grad_x_kernel
from .gpu_kernels import output_kernel, pass_kernel, states_kernel

SMALLEST = 16  # side of a block that is multiplied: what matrix units take
REGISTERS = 255  # a thread; left to itself the assembler aims lower and moves some to memory
PASSED, PASS_WARPS = 512, 2  # numbers of the state that one program of the chain carries
LOWEST = -1000.0  # of log_decay: exp of it is 0, and differences of running sums stay numbers
PRODUCTS = {torch.bfloat16: "bf16", torch.float16: "tf32", torch.float32: "tf32x3"}
PROCESSORS_WITHOUT_GPU = 1  # the interpreter runs programs one after the other


class Tile(NamedTuple):
    """Largest blocks of channels and of states that a kernel works on, warps of a program, stages of its loops."""

    width: int
    states: int
    warps: int
    stages: int = 3


# By what is multiplied. Found by compiling for sm_80 and sm_90: larger ones spill registers.
ROWS = {"bf16": 64, "tf32": 32, "tf32x3": 32}
TILES = {
    "bf16": {
        "states": Tile(64, 32, 4), "output": Tile(64, 32, 4), "grad_x": Tile(64, 32, 8), "grad_bc": Tile(64, 32, 8),
    },
    "tf32": {
        "states": Tile(32, 32, 4), "output": Tile(32, 32, 4), "grad_x": Tile(32, 32, 8), "grad_bc": Tile(32, 32, 4),
    },
    "tf32x3": {
        "states": Tile(32, 32, 4), "output": Tile(32, 32, 4), "grad_x": Tile(16, 16, 4), "grad_bc": Tile(16, 16, 4, 1),
    },
}  # fmt: skip


class Plan(NamedTuple):
    """Sizes of one call: `chunks` of `steps` steps; kind: what is multiplied."""

    batch: int
    length: int
    heads: int
    width: int
    groups: int
    states: int
    rank: int
    chunks: int
    steps: int
    kind: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """L, K, H, HG of the kernels."""
        return self.length, self.chunks, self.heads, self.heads // self.groups

    def tile(self, kernel: str) -> Tile:
        """No larger than what there is to work on."""
        tile = TILES[self.kind][kernel]
        even = self.width <= tile.width and self.width % SMALLEST == self.states % SMALLEST == 0
        if kernel in ("grad_x", "grad_bc") and not even:  # masks and loops take registers
            tile = tile._replace(width=SMALLEST, states=SMALLEST)
        return tile._replace(width=_side(min(self.width, tile.width)), states=_side(min(self.states, tile.states)))

    def constants(self, kernel: str) -> dict[str, int | str]:
        """Compile-time arguments and launch options of a kernel."""
        tile = self.tile(kernel)
        sizes = {"P": self.width, "N": self.states, "Q": self.steps, "R": self.rank, "KIND": self.kind}
        sizes |= {"BQ": _side(self.steps * self.rank), "BP": tile.width, "BN": tile.states}
        return sizes | {"num_warps": tile.warps, "num_stages": tile.stages, "maxnreg": REGISTERS}


class _Steps(NamedTuple):
    """What the kernels read for each step: weight, own weight, running sum of log_decay, its rest, count of restarts.

    All (batch, heads, chunks * steps) float32 but the last, (batch, chunks * steps) int32; steps that fill up the last chunk
    change nothing.
    """

    weight: Tensor
    own: Tensor | None
    total: Tensor
    rest: Tensor
    restarts: Tensor | None

    @property
    def sums(self) -> tuple[Tensor | None, ...]:
        return self.total, self.rest, self.restarts


def saved_shape(
    batch: int, steps: int, heads: int, headdim: int, groups: int, states: int, rank: int
) -> tuple[int, ...]:
    """Nothing is saved: states at chunk starts hold states / rows of a chunk times the numbers of x, in float32."""
    return (0,)


def heads_of_program(programs: int, heads: int, processors: int) -> int:
    """How many heads of a group one program sums, a divisor of them, so that there are about four programs a processor.

    Args:
        programs: there would be if each summed all heads of its group.
        heads: of a group.
        processors: multiprocessors of the card.
    """
    parts = max(1, 4 * processors // max(1, programs))
    return next(each for each in range(max(1, heads // parts), 0, -1) if heads % each == 0)


def forward(
    x: Tensor, log_decay: Tensor, weight: Tensor, own_weight: Tensor | None, B: Tensor, C: Tensor,
    restart: Tensor | None, initial_state: Tensor | None, rank: int, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the final state (batch, heads, headdim, states) and nothing saved; shapes: registration.py."""
    plan = _plan(x, B, C, rank)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    shape = (plan.batch, plan.heads, plan.width, plan.states)
    final_state = torch.empty(shape, dtype=torch.float32, device=x.device)
    nothing = final_state.new_empty(0)
    if y.numel() * plan.states == 0:
        _edge(final_state, initial_state)
        return y.zero_(), final_state, nothing
    x, B, C = (_rows(t) for t in (x, B, C))
    steps = _steps(plan, log_decay, weight, own_weight, restart)
    with _on(x):
        states = _states(plan, x, B, steps.weight, steps.sums, initial_state, final_state)
        output_kernel[(plan.batch * plan.chunks * plan.heads * cdiv(plan.width, plan.tile("output").width),)](
            x, B, C, steps.weight, steps.own, *steps.sums, states, y, x.stride()[:3], B.stride()[:3], C.stride()[:3],
            *plan.sizes, **plan.constants("output"),
        )  # fmt: skip
    return y, final_state, nothing


def backward(
    grad_y: Tensor | None, grad_state: Tensor | None,
    x: Tensor, log_decay: Tensor, weight: Tensor, own_weight: Tensor | None, B: Tensor, C: Tensor,
    restart: Tensor | None, initial_state: Tensor | None, rank: int, chunk_states: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, log_decay, weight, own_weight, B, C, initial_state; None where the argument is None."""
    plan = _plan(x, B, C, rank)
    given = (x, log_decay, weight, own_weight, B, C, initial_state)
    if x.numel() * plan.states == 0:
        found = [None if t is None else torch.zeros(t.shape, dtype=t.dtype, device=t.device) for t in given]
        if initial_state is not None and grad_state is not None:
            found[-1].copy_(grad_state)
        return tuple(found)
    dy = _rows(x.new_zeros(x.shape) if grad_y is None else grad_y)
    rows, b, c = (_rows(t) for t in (x, B, C))
    steps = _steps(plan, log_decay, weight, own_weight, restart)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    edge = None if initial_state is None else torch.empty(initial_state.shape, dtype=torch.float32, device=x.device)
    of_rows = [
        torch.empty((plan.batch, plan.heads, plan.chunks, plan.steps * rank), dtype=torch.float32, device=x.device)
        for _ in range(3)
    ]
    strides = [t.stride()[:3] for t in (dy, rows, b, c)]
    with _on(x):
        states = _states(plan, rows, b, steps.weight, steps.sums, initial_state, None)
        grads = _states(plan, dy, c, None, steps.sums, grad_state, edge, back=True)
        read = (dy, rows, b, c, steps.weight, steps.own, *steps.sums, states, grads)
        grad_x_kernel[(plan.batch * plan.chunks * plan.heads,)](
            *read, dx, *of_rows, *strides, *plan.sizes, **plan.constants("grad_x")
        )
        db, dc = _grad_bc(plan, read, strides)
    count = log_decay.shape[1]
    dw, down, dlog = (t.view(*t.shape[:2], -1, rank)[:, :, :count].transpose(1, 2) for t in of_rows)
    dw, down, dlog = dw.sum(-1), down.sum(-1), dlog[..., 0]
    if own_weight is None:
        dw, down = dw + down, None
    found = (dx, dlog.contiguous(), dw.contiguous(), down, db, dc, edge)
    return tuple(None if g is None else g.to(t.dtype) for g, t in zip(found, given, strict=True))


def _states(
    plan: Plan, x: Tensor, rows: Tensor, weight: Tensor | None, sums: tuple, edge: Tensor | None, last: Tensor | None,
    back: bool = False,
) -> Tensor:  # fmt: skip
    """What enters each chunk, (batch, chunks, heads, headdim, states), with `back` from its end; `last` is filled."""
    shape = (plan.batch, plan.chunks, plan.heads, plan.width, plan.states)
    states = torch.empty(shape, dtype=torch.float32, device=x.device)
    tile = plan.tile("states")
    blocks = cdiv(plan.width, tile.width) * cdiv(plan.states, tile.states)
    states_kernel[(plan.batch * plan.chunks * plan.heads * blocks,)](
        x, rows, weight, *sums, states, x.stride()[:3], rows.stride()[:3], *plan.sizes, BACK=back,
        **plan.constants("states"),
    )  # fmt: skip
    numbers = plan.width * plan.states
    edge = None if edge is None else edge.float().contiguous()
    pass_kernel[(plan.batch * plan.heads * cdiv(numbers, PASSED),)](
        states, *sums, edge, last, plan.chunks, plan.heads, numbers, REVERSE=back, Q=plan.steps, BLOCK=PASSED,
        num_warps=PASS_WARPS,
    )  # fmt: skip
    return states


def _grad_bc(plan: Plan, read: tuple, strides: list) -> tuple[Tensor, Tensor]:
    """Gradients of B and C, (batch, rows, groups, states) float32."""
    programs = plan.batch * plan.chunks * plan.groups * cdiv(plan.states, plan.tile("grad_bc").states)
    group = plan.heads // plan.groups
    each = heads_of_program(programs, group, _processors(read[0].device))
    parts = group // each
    db, dc = (
        torch.empty(
            (parts, plan.batch, plan.length, plan.groups, plan.states), dtype=torch.float32, device=read[0].device
        )
        for _ in "BC"
    )
    grad_bc_kernel[(programs * parts,)](
        *read, db, dc, *strides, plan.batch, *plan.sizes, HB=each, **plan.constants("grad_bc")
    )
    return (db[0], dc[0]) if parts == 1 else (db.sum(0), dc.sum(0))


def _steps(plan: Plan, log_decay: Tensor, weight: Tensor, own_weight: Tensor | None, restart: Tensor | None) -> _Steps:
    missing = plan.chunks * plan.steps - log_decay.shape[1]

    def by_head(values: Tensor) -> Tensor:
        return F.pad(values.float(), (0, 0, 0, missing)).transpose(1, 2).contiguous()

    # In float64, and what float32 leaves of it kept as well: see gpu_kernels.py.
    whole = by_head(log_decay.clamp_min(LOWEST)).double().unflatten(2, (plan.chunks, plan.steps)).cumsum(3).flatten(2)
    total = whole.float()
    rest = (whole - total).float()
    if restart is not None:
        restart = F.pad(restart.int(), (0, missing)).unflatten(1, (plan.chunks, plan.steps))
        restart = restart.cumsum(2, dtype=torch.int32).flatten(1).contiguous()
    own = None if own_weight is None else by_head(own_weight)
    return _Steps(by_head(weight), own, total, rest, restart)


def _plan(x: Tensor, B: Tensor, C: Tensor, rank: int) -> Plan:
    (batch, length, heads, width), (groups, states) = x.shape, B.shape[2:]
    kind = PRODUCTS[torch.promote_types(torch.promote_types(x.dtype, B.dtype), C.dtype)]
    steps = max(1, ROWS[kind] // rank)
    chunks = cdiv(length // rank, steps)
    return Plan(batch, length, heads, width, groups, states, rank, chunks, steps, kind)


def _side(size: int) -> int:
    """Side of a block that holds so many."""
    return max(SMALLEST, next_power_of_2(size))


def _edge(state: Tensor, given: Tensor | None) -> None:
    if given is None:
        state.zero_()
    else:
        state.copy_(given)


def _rows(t: Tensor) -> Tensor:
    """The tensor with the last axis contiguous; other strides stay as they are."""
    return t if t.shape[-1] <= 1 or t.stride(-1) == 1 else t.contiguous()


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return PROCESSORS_WITHOUT_GPU
    return torch.cuda.get_device_properties(device).multi_processor_count


def _on(x: Tensor):
    """Kernels are launched on the current device: make it the tensors' own."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
