"""Every kernel that the cases of `make gpu` launch, in the very configuration, compiled for cards that are not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
SHARED = {
    80: 99 << 10,
    90: 227 << 10,
}  # bytes a program may have; on sm_80 also those of the cards with less than an A100
CASES = ("scan", "convolution", "duality", "mixers", "decoding", "training", "machine")


def compiled(architecture: int, *names: str) -> list[dict]:
    """What tests/support/compiled_cases.py prints."""
    import json

    done = subprocess.run(
        [sys.executable, SUPPORT / "compiled_cases.py", str(architecture), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_fit(found: list[dict], architecture: int) -> None:
    assert found
    assert all(launch["stack"] == launch["local"] == 0 for launch in found), found
    assert all(launch["shared"] <= SHARED[architecture] for launch in found), found
    # A block's registers, given out in units of 256 a warp.
    assert all(launch["warps"] * -(-32 * launch["registers"] // 256) * 256 <= 65_536 for launch in found), found
    assert all(launch["programs"] < 2**31 for launch in found), found


@pytest.mark.slow
def test_what_is_launched_is_compiled_and_counted():
    (launch,) = compiled(90, "machine")
    assert (launch["kernel"], launch["warps"], launch["programs"]) == ("exponentials_kernel", 4, 1)
    assert_fit([launch], 90)


@pytest.mark.slow
def test_the_convolutions_cases_launch_every_kernel_of_it():
    assert {launch["kernel"] for launch in compiled(90, "convolution")} == {
        "conv_kernel", "conv_state_kernel", "conv_backward_weight_kernel", "conv_backward_input_kernel",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("name", CASES)
def test_every_case(name, architecture):
    assert_fit(compiled(architecture, name), architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["scan", "convolution", "duality"])
def test_every_case_of_an_operator_in_other_dtypes(name, dtype, architecture):
    assert_fit(compiled(architecture, name, dtype), architecture)
