"""Every kernel on the card against the float64 reference: random calls, as the tests make them.

A check is a name and a function that raises where something is wrong. The calls and the comparison are those of the tests
(tests/support), so that a machine without pytest holds the kernels to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ...core.ops.causal_conv1d import causal_conv1d
from ...core.ops.selective_scan import selective_scan
from ...core.ops.state_space_duality import state_space_duality
from ...core.ops.tolerances import RELATIVE_ERROR
from ...core.ops.trapezoidal_scan import TrapezoidalState, trapezoidal_scan
from .device import Device

Checks = Iterator[tuple[str, Callable[[], None]]]
HALF = (torch.bfloat16, torch.float16)
LOW = ("x", "delta", "dt", "B", "C", "z")  # what autocast leaves in half precision


def run_check(name: str, check: Callable[[], None]) -> dict:
    """A row: right, or why not."""
    from .cases import reason

    try:
        check()
    except Exception as error:
        return {"check": name, "ok": False, "error": reason(error)}
    return {"check": name, "ok": True}


def share(checks: Checks, part: int, parts: int) -> Checks:
    """Every so manieth check, for running several processes beside each other."""
    return (check for place, check in enumerate(checks) if place % parts == part)


def scan_checks(device: Device) -> Checks:
    from operators import selective_scan_call

    sizes = device.pick({}, {"longest": 5, "states": 6, "paths": 2})
    yield from _random_checks("selective_scan", selective_scan, selective_scan_call, sizes, device, 16, 3)


def convolution_checks(device: Device) -> Checks:
    from operators import causal_conv1d_call

    sizes = device.pick({}, {"longest": 6, "paths": 2})
    yield from _random_checks("causal_conv1d", causal_conv1d, causal_conv1d_call, sizes, device, 16, 3)


def duality_checks(device: Device) -> Checks:
    from dualities import state_space_duality_call, trapezoidal_scan_call

    sizes = device.pick({}, {"longest": 5, "states": 6, "paths": 2})
    make = partial(state_space_duality_call, **sizes)
    yield from _random_checks("state_space_duality", state_space_duality, make, {}, device, 10, 2)
    yield from _random_checks(
        "trapezoidal_scan", _trapezoidal, partial(trapezoidal_scan_call, **sizes), {}, device, 8, 2
    )


def _trapezoidal(h=None, B_before=None, x_before=None, **given):
    """The scan with the parts of its state as arguments, and the states of one tensor."""
    state = None if h is None else TrapezoidalState(h, B_before, x_before)
    out, after = trapezoidal_scan(**given, initial_state=state, return_final_state=True)
    return out, torch.cat([t.flatten() for t in after])


def _random_checks(name, operator, make, sizes, device: Device, count: int, small: int) -> Checks:
    for seed in range(device.pick(count, small)):
        call = partial(make, seed, **sizes)
        yield (
            f"{name}, random call {seed}, float32, output, state and gradients",
            partial(exact, operator, call, device),
        )
        if seed % 4 == 0:
            yield f"{name}, random call {seed}, three times the same bits", partial(repeats, operator, call, device)
        # The interpreter multiplies the bits of bfloat16 numbers.
        for dtype in HALF if seed % 4 == 1 and not device.small else ():
            yield f"{name}, random call {seed}, {str(dtype)[6:]}", partial(in_half, operator, call, dtype, device)


def exact(operator, make: Callable[[], tuple[dict, dict]], device: Device) -> None:
    from operators import assert_matches_reference

    assert_matches_reference(operator, *make(), backend="gpu", device=device.name)


def repeats(operator, make: Callable[[], tuple[dict, dict]], device: Device) -> None:
    from operators import run

    found = [run(operator, *make(), "gpu", device=device.name) for _ in range(3)]
    other = [name for again in found[1:] for name in again if not torch.equal(found[0][name], again[name])]
    if other:
        raise AssertionError(f"differ from one run to the next: {sorted(set(other))}")


def in_half(operator, make: Callable[[], tuple[dict, dict]], dtype: torch.dtype, device: Device) -> None:
    """Output, state and gradients in half precision against the reference on the same rounded numbers."""
    from operators import relative_error, run

    tensors, other = make()
    tensors = {n: t.to(dtype).float() if n in LOW else t for n, t in tensors.items()}
    expected = run(operator, tensors, other, "reference", torch.float64)

    def rounded(**given):
        return operator(**{n: t.to(dtype) if n in LOW else t for n, t in given.items()})

    found = run(rounded, tensors, other, "gpu", torch.float32, device.name)
    # A gradient that cancels to nothing has no relative error; what half precision makes of it is small beside the largest.
    largest = max(float(t.norm()) for n, t in expected.items() if n.startswith("d"))
    limit, errors = RELATIVE_ERROR[dtype], {}
    for name, value in expected.items():
        error = relative_error(found[name], value)
        negligible = (
            name.startswith("d") and float((found[name].double().cpu() - value.cpu()).norm()) <= limit * 1e-2 * largest
        )
        if not error <= limit and not negligible:
            errors[name] = error
    if errors:
        raise AssertionError(f"{errors} beyond {limit}")


class Refused(AssertionError):
    """A check that found something wrong."""


def near(found: torch.Tensor, expected: torch.Tensor, limit: float, what: str) -> None:
    from operators import relative_error

    error = relative_error(found, expected)
    if not error <= limit:
        raise Refused(f"{what}: relative error {error:.3g}, allowed {limit:.3g}")
