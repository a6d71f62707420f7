"""The scan and the convolution: against the plain loop, over lengths, paths and orders."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from ..core import scans
from ..core.ops.causal_conv1d import causal_conv1d
from ..core.ops.selective_scan import selective_scan
from .timing import compare, row

CHANNELS, STATES = 1536, 16


def scan_arguments(length: int, paths: int = 1, device: str = "cpu", channels: int = CHANNELS) -> dict:
    """A scan as a mixer of width channels / 2 calls it, batch 1, float32: tensors that want gradients."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g).to(device)

    several = (1, paths, length) if paths > 1 else (1, length)
    own = (paths,) if paths > 1 else ()
    A = -torch.arange(1, STATES + 1).float().expand(*own, channels, STATES).to(device)
    given = {"x": normal(1, length, channels), "delta": normal(*several, channels) - 3, "A": A.clone()}
    given |= {"B": normal(*several, STATES), "C": normal(*several, STATES), "D": normal(*own, channels)}
    given |= {"z": normal(1, length, channels), "delta_bias": 0.1 * normal(*own, channels)}
    return {name: t.requires_grad_() for name, t in given.items()}


def forward(arguments: dict, **options):
    with torch.no_grad():
        return selective_scan(**arguments, delta_softplus=True, **options)


def forward_backward(arguments: dict, scored: int | None = None, **options):
    """A training step; `scored`: only so many of the last tokens have a gradient (a classification, a recall task)."""
    out = selective_scan(**arguments, delta_softplus=True, **options)
    gradient = torch.ones_like(out)
    if scored is not None:
        gradient[..., : out.shape[-2] - scored, :] = 0
    return torch.autograd.grad(out, list(arguments.values()), gradient)


def scan_suite(device: str):
    """Kernel against the plain loop, length 1024; few tokens scored against all."""
    given, case = scan_arguments(1024, device=device), f"length 1024, {CHANNELS} channels, {STATES} states"
    # The loop's training step takes seconds: three rounds are enough for a ratio this large.
    for what, run, rounds in (("forward", forward, 5), ("forward+backward", forward_backward, 3)):
        run(given)
        functions = {"loop": partial(run, given, backend="reference"), "kernel": partial(run, given)}
        measured = compare(functions, rounds=rounds, warmup=0)
        yield row("scan", f"{what}, {case}", measured, "loop", "kernel")
    # The gradient of the state fades towards the first tokens and would end in subnormal numbers: see core/ops/cpu/subnormals.py.
    last = {"last 8 tokens scored": partial(forward_backward, given, 8), "all scored": partial(forward_backward, given)}
    yield row("scan", f"forward+backward, {case}", compare(last, rounds=15), *last)
    yield from official_suite(device)


def official_suite(device: str):
    """The official CUDA scan, where it can be imported (mamba_ssm built with its Mamba-1 extension)."""
    if device != "cuda":
        return
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as reason:
        print(f"official CUDA scan left out: {reason}")
        return
    for length in (512, 1024, 4096, 16384, 65536):
        ours = scan_arguments(length, device=device)
        swapped = {
            name: t.transpose(1, 2).contiguous() if t.dim() == 3 else t for name, t in ours.items() if name not in "BC"
        }
        matrices = [ours[name].transpose(1, 2).contiguous() for name in "BC"]

        def official(given=swapped, BC=matrices):
            x, delta, A = given["x"], given["delta"], given["A"]
            out = selective_scan_fn(x, delta, A, *BC, given["D"], given["z"], given["delta_bias"], True)
            return torch.autograd.grad(out, [x, delta, A], torch.ones_like(out))

        measured = compare({"official": official, "kernel": lambda given=ours: forward_backward(given)}, rounds=15)
        yield row(
            "scan", f"forward+backward, length {length}, against the official CUDA scan", measured, "official", "kernel"
        )


def conv_suite(device: str):
    """Causal convolution with SiLU against PyTorch's conv1d, raster and random order."""
    length, g = 1024, torch.Generator().manual_seed(0)
    x = torch.randn(1, length, CHANNELS, generator=g).to(device)
    weight, bias = torch.randn(CHANNELS, 4, generator=g).to(device), torch.randn(CHANNELS, generator=g).to(device)
    order = torch.randperm(length, generator=g)[None].int().to(device)

    def library():
        y = F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), weight[:, None], bias, groups=CHANNELS)
        return F.silu(y).transpose(1, 2)

    with torch.no_grad():
        measured = compare(
            {
                "conv1d": library,
                "raster": lambda: causal_conv1d(x, weight, bias, "silu"),
                "random order": lambda: causal_conv1d(x, weight, bias, "silu", order=order),
            },
            rounds=21,
        )
    yield row("conv", f"forward, length {length}", measured, "conv1d", "raster")
    yield row("conv", f"forward, length {length}", measured, "random order", "raster")


def order_suite(device: str):
    """A random order against raster; cross (four paths) against four single scans."""
    length = 1024
    given, order = scan_arguments(length, device=device), torch.randperm(length)[None].int().to(device)
    for what, run in (("forward", forward), ("forward+backward", forward_backward)):
        measured = compare(
            {"random order": lambda run=run: run(given, order=order), "raster": lambda run=run: run(given)}, 21
        )
        yield row("order", f"{what}, length {length}", measured, "random order", "raster")
    four = scan_arguments(length, paths=4, device=device)
    cross = scans.get("cross").order((32, 32)).to(device)
    for what, run in (("forward", forward), ("forward+backward", forward_backward)):

        def singles(run=run):
            for _ in range(4):
                run(given)

        measured = compare({"cross": lambda run=run: run(four, order=cross), "four single scans": singles}, rounds=11)
        yield row("order", f"{what}, 32x32 tokens", measured, "cross", "four single scans")


def length_suite(device: str):
    """Time per token from 512 to 65,536 tokens."""
    lengths = (512, 1024, 4096, 16384, 65536)
    for what, run in (("forward", forward), ("forward+backward", forward_backward)):
        calls = {}
        for length in lengths:
            given, times = scan_arguments(length, device=device), max(1, 4096 // length)

            def repeat(run=run, given=given, times=times):
                for _ in range(times):
                    run(given)

            calls[length] = (repeat, times)
        measured = compare({str(length): call for length, (call, _) in calls.items()}, rounds=9)
        for length, (_, times) in calls.items():
            tokens = (length * times) / (1024 * calls[1024][1])
            entry = row(
                "length", f"{what}, length {length}", measured, str(length), "1024", microseconds_per_token=None
            )
            entry["ratio"] = round(entry["ratio"] / tokens, 4)
            entry["microseconds_per_token"] = round(1e6 * measured.median(str(length)) / (length * times), 4)
            yield entry | {"what": f"time per token at {length}", "against": "time per token at 1024"}
