"""Where the time of a mixer's training step goes: kernels, linear layers, copies, Python and autograd, waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..core import mixers
from ..core.ops.cpu.team import Kernel

WIDTHS, LENGTHS = (64, 192, 384, 768), (64, 256, 1024, 4096)
# Scans of one, two and four paths over tokens in a row, and the mixers with their options.
SCANS = {1: "raster", 2: "bidirectional", 4: "bidirectional+bidirectional"}
MIXERS = {"mamba": {}, "mamba2": {}, "mamba3": {}, "mamba3, rank 4": {"is_mimo": True}}
# Sequences are trained together until there are so many tokens.
TOKENS, ROUNDS = 1024, 5

PRODUCTS = (
    "mm", "bmm", "addmm", "addmv", "baddbmm", "linear", "_linear_pointwise", "mkldnn_rnn_layer", "mkldnn_convolution",
    "convolution_backward",
)  # fmt: skip
PARTS = ("kernels", "linear_layers", "products", "copies", "python_and_autograd", "waiting")


def profile_suite(device: str) -> Iterator[dict]:
    """Shares of a training step by part, for every mixer, width, number of paths and length."""
    if device != "cpu":
        return
    for name, options in MIXERS.items():
        for width in WIDTHS:
            for paths, scan in SCANS.items():
                mixer = mixers.get(name.split(",")[0])(width, scan=scan, **options)
                for length in LENGTHS:
                    batch = max(1, TOKENS // length)
                    spent = parts_of(training_step(mixer, torch.randn(batch, length, width)), mixer)
                    total = sum(spent.values())
                    yield {
                        "suite": "profile",
                        "case": f"{name}, d_model {width}, {paths} paths, {batch} x {length} tokens",
                        "what": ", ".join(f"{part} {spent[part] / total:.0%}" for part in PARTS),
                        "against": "its linear layers",
                        "ratio": round(total / max(spent["linear_layers"], 1e-9), 3),
                        "ms": round(1e3 * total, 3),
                        "threads": torch.get_num_threads(),
                        **{part: round(1e3 * spent[part], 4) for part in PARTS},
                    }


def training_step(mixer: nn.Module, x: Tensor) -> Callable[[], object]:
    """A mixer's forward and backward over (batch, length, channels)."""
    wanted, gradient = [x.requires_grad_(), *mixer.parameters()], torch.randn(x.shape)

    def step():
        return torch.autograd.grad(mixer(x)[0], wanted, gradient, allow_unused=True)

    return step


def parts_of(step: Callable[[], object], mixer: nn.Module, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of one step by part; together they are the step's.

    kernels: inside the compiled kernels. linear_layers: products with the mixer's weights, products: all others. copies: what
    else PyTorch computes or moves on tensors. waiting: the step's time in which no thread of the process ran. The rest is
    Python and autograd.
    """
    step()
    wall, running = _best(step, rounds)
    with timed_kernels() as inside, profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        for _ in range(rounds):
            step()
    sizes = {size for weight in mixer.parameters() if weight.dim() >= 2 for size in weight.shape}
    spent = dict.fromkeys(PARTS, 0.0) | {"kernels": inside[0] / rounds}
    for event in record.key_averages(group_by_input_shape=True):
        part = _part(event.key, event.input_shapes, sizes)
        if part is not None:
            spent[part] += 1e-6 * event.self_cpu_time_total / rounds
    spent["waiting"] = max(0.0, wall - running)
    spent["python_and_autograd"] = max(0.0, wall - sum(spent.values()))
    return spent


def _part(name: str, shapes: list, sizes: set[int]) -> str | None:
    """To which part an operator's own time belongs; None: it only looks at tensors."""
    kind, _, short = name.partition("::")
    if kind not in ("aten", "mkldnn"):
        return None
    if short not in PRODUCTS:
        return None if short in VIEWS else "copies"
    matrices = [shape for shape in shapes if len(shape) >= 2]
    return "linear_layers" if any(set(shape[-2:]) <= sizes for shape in matrices) else "products"


VIEWS = {
    "view", "reshape", "unsqueeze", "squeeze", "transpose", "t", "select", "slice", "split", "split_with_sizes", "chunk", "expand",
    "as_strided", "detach", "empty", "empty_like", "empty_strided", "unflatten", "flatten", "narrow", "_unsafe_view", "alias", "to",
    "matmul", "permute", "unbind", "resolve_neg", "resolve_conj", "result_type", "contiguous", "_to_copy", "numpy_T", "set_",
}  # fmt: skip


@contextmanager
def timed_kernels() -> Iterator[list[float]]:
    """Adds up the seconds that CPU kernels run for."""
    total, run = [0.0], Kernel.run

    def timed(kernel: Kernel, argument: int, items: int) -> None:
        begin = time.perf_counter()
        run(kernel, argument, items)
        total[0] += time.perf_counter() - begin

    with patch.object(Kernel, "run", timed):
        yield total


def _best(step: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Of the quickest of some rounds: seconds on the clock, and those in which a processor worked for this process."""
    found = []
    for _ in range(rounds):
        clock, cpu = time.perf_counter(), time.process_time()
        step()
        found.append((time.perf_counter() - clock, time.process_time() - cpu))
    wall, cpu = min(found)
    return wall, min(wall, cpu / torch.get_num_threads())
