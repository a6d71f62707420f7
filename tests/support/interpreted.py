"""Runs random calls of an operator through its Triton kernels in Triton's interpreter, on the CPU.

Triton decides when a kernel is defined whether it will be interpreted, so this runs as a program of its own:

    TRITON_INTERPRET=1 python interpreted.py selective_scan 40 12
    TRITON_INTERPRET=1 python interpreted.py causal_conv1d 40 100

runs the first 40 scans, cut to 12 tokens, 20 states and 3 paths, or the first 40 convolutions of at most 100 token visits (a
visit takes about 10 ms here). Prints one JSON object a line: the call, the form of the kernels, and by name the relative
errors of outputs and gradients.
New tensors of the host code are filled with NaN, so that a number never written cannot pass for one. What an operator returns
is held to what its shape function promises torch.compile.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Iterator

import torch
from operators import causal_conv1d_call, relative_error, run, selective_scan_call
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.selective_scan import gpu, selective_scan


def poison() -> None:
    """Make torch.empty and Tensor.new_empty return NaN where they can."""

    def filled(make):
        @functools.wraps(make)
        def made(*arguments, **keywords):
            tensor = make(*arguments, **keywords)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() and tensor.device.type == "cpu" else tensor

        return made

    torch.empty, torch.Tensor.new_empty = filled(torch.empty), filled(torch.Tensor.new_empty)


class AsPromised(TorchDispatchMode):
    """Every operator of the project returns tensors of the shapes, dtypes and strides that it promises."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        if function.namespace == "polymamba":
            with FakeTensorMode() as mode:
                promised = function(*(mode.from_tensor(a) if torch.is_tensor(a) else a for a in arguments))
            for a, b in zip(found, promised, strict=True):
                assert _layout(a) == _layout(b), f"{function}: {_layout(a)}, promised {_layout(b)}"
        return found


def _layout(t: torch.Tensor) -> tuple:
    strides = [stride for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1] if t.numel() else []
    return tuple(t.shape), t.dtype, strides


def visits(call: tuple[dict, dict]) -> int:
    """Token visits of all programs, batch × paths × groups × length."""
    shapes, order = {name: t.shape for name, t in call[0].items()}, call[1].get("order")
    paths = 1 if order is None else order.shape[-2]
    groups = shapes["B"][-2] if "B" in shapes and len(shapes["B"]) == 5 else 1
    return shapes["x"][0] * paths * groups * shapes["x"][-2]


def calls(make, count: int, most: int) -> Iterator[tuple[int, tuple[dict, dict]]]:
    small = ((seed, call) for seed in itertools.count() if visits(call := make(seed)) <= most)
    return itertools.islice(small, count)


def report(operator, call: tuple[dict, dict], **label) -> None:
    expected = run(operator, *call, "reference", torch.float64)
    with AsPromised():
        found = run(operator, *call, "gpu", torch.float32)
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    print(json.dumps(label | {"errors": errors}), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    name, count, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    poison()
    if name == "causal_conv1d":
        for seed, call in calls(functools.partial(causal_conv1d_call, longest=40, paths=3), count, most):
            report(causal_conv1d, call, seed=seed, form="whole")
        return
    gpu.CHUNK = 4  # short sequences then have several chunks
    for seed in range(count):
        call = selective_scan_call(seed, longest=most, states=20, paths=3)
        gpu.WIDE = 0 if seed % 4 == 3 else 2**31
        for form, segments in (("split", 3), ("whole", 1))[: 1 + seed % 2]:
            gpu.segments_of = lambda *sizes, segments=segments: segments
            report(selective_scan, call, seed=seed, form=form)


if __name__ == "__main__":
    main()
