"""Runs random calls of state space duality on dense sequences through its Triton kernels in Triton's interpreter, on the CPU.

Triton decides when a kernel is defined whether it will be interpreted, so this runs as a program of its own:

    TRITON_INTERPRET=1 python interpreted_duality.py 40 100 float32

runs the first 40 calls of at most 100 rows x heads. Prints one JSON object a line: the call and, by name, the relative errors of
outputs and gradients against the float64 reference. New tensors of the host code are filled with NaN, so that a number never
written cannot pass for one. Every other call has chunks of 16 rows, and blocks so small that
loops go round, the rest chunks of 64; every third sums heads in parts.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator

import torch
from dualities import dense_duality_call
from interpreted import AsPromised, poison
from operators import relative_error

from polymamba.core.ops.state_space_duality import gpu
from polymamba.core.ops.state_space_duality.reference import dense_reference
from polymamba.core.ops.state_space_duality.registration import state_space_duality_op

NAMES = ("x", "log_decay", "weight", "own_weight", "B", "C", "initial_state", "skip")
LOW = ("x", "B", "C")
TILES = {kind: {name: gpu.Tile(16, 16, 4) for name in tiles} for kind, tiles in gpu.TILES.items()}
NOTHING = 1e-30  # a gradient that float32 cannot hold: what has decayed that far counts as zero


def dense_run(compute, tensors: dict, other: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Outputs and gradients by name, for output gradients that depend on the seed alone."""
    given = {name: None if t is None else t.detach().requires_grad_() for name, t in tensors.items()}
    first, state, skip = [given[name] for name in NAMES[:6]], given["initial_state"], given.get("skip")
    y, state = compute(*first, other["restart"], state, other["rank"], skip)
    g = torch.Generator().manual_seed(seed)
    incoming = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in (y, state)]
    wanted = [name for name in NAMES if given.get(name) is not None]
    gradients = torch.autograd.grad((y, state), [given[name] for name in wanted], incoming)
    return {"y": y, "final_state": state} | {f"d{n}": d for n, d in zip(wanted, gradients, strict=True)}


def errors(tensors: dict, other: dict, dtype: torch.dtype = torch.float32, device: str = "cpu") -> dict[str, float]:
    """Relative errors of the kernels, by name, where x, B and C are of this dtype."""
    rounded = {n: t if t is None or n not in LOW else t.to(dtype) for n, t in tensors.items()}
    expected = dense_run(dense_reference, {n: None if t is None else t.double() for n, t in rounded.items()}, other)
    moved = {n: None if t is None else t.to(device) for n, t in rounded.items()}
    restart = None if other["restart"] is None else other["restart"].to(device)
    found = dense_run(lambda *a: state_space_duality_op(*a, "gpu"), moved, other | {"restart": restart})
    kept = {name: t if t.norm() > NOTHING else torch.zeros_like(t) for name, t in expected.items()}
    return {name: relative_error(found[name], kept[name]) for name in expected}


def calls(count: int, most: int) -> Iterator[tuple[int, tuple[dict, dict]]]:
    small = (
        (seed, call)
        for seed in itertools.count()
        if (call := dense_duality_call(seed, longest=70))[0]["x"].shape[:3].numel() <= most
    )
    return itertools.islice(small, count)


def main() -> None:
    torch.set_num_threads(1)
    poison()
    # The interpreter multiplies the bits of bfloat16 numbers: let it see them as float32.
    gpu.PRODUCTS = gpu.PRODUCTS | {torch.bfloat16: "tf32"}
    processors, tiles = gpu._processors, gpu.TILES
    for i, (seed, call) in enumerate(calls(int(sys.argv[1]), int(sys.argv[2]))):
        gpu.ROWS = dict.fromkeys(gpu.ROWS, rows := (16, 64)[i % 2])
        gpu.TILES = TILES if i % 2 == 0 else tiles
        gpu._processors = (lambda device: 100) if i % 3 == 2 else processors
        with AsPromised():
            found = errors(*call, getattr(torch, sys.argv[3]))
        print(json.dumps({"seed": seed, "rows": rows, "rank": call[1]["rank"], "errors": found}), flush=True)


if __name__ == "__main__":
    main()
