"""Subnormal numbers inside and outside the CPU kernels."""

import platform

import pytest
import torch
from llvmlite import binding, ir

from polymamba.core.ops.cpu import subnormals
from polymamba.core.ops.selective_scan import selective_scan

TINY = 1e-40
KNOWN = platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")


def kept_state(batch: int, state: float) -> torch.Tensor:
    """The state after two tokens without input and without decay: (batch, 1 path, 3 channels, 2 states)."""
    x, delta = torch.zeros(batch, 2, 3), torch.zeros(batch, 2, 3)
    B = C = torch.zeros(batch, 2, 1, 2)
    initial = torch.full((batch, 3, 2), state)
    return selective_scan(
        x, delta, -torch.ones(3, 2), B, C, initial_state=initial, return_final_state=True, backend="cpu"
    )[1]


@pytest.mark.skipif(not KNOWN, reason="the setting of this processor is not known")
@pytest.mark.parametrize("batch", [1, 64])
def test_a_kernel_takes_subnormal_numbers_for_zero_on_every_thread(batch):
    assert (kept_state(batch, 1e-37) == 1e-37).all()
    assert (kept_state(batch, TINY) == 0).all()


def test_outside_the_kernels_nothing_changes():
    kept_state(64, TINY)
    # above PyTorch's grain size: all threads of the pool take part
    many = torch.full((1 << 20,), TINY)
    assert float(many[0]) != 0
    assert (many * 1 == many).all()


def test_a_setting_that_was_there_before_stays():
    if not torch.set_flush_denormal(True):
        pytest.skip("PyTorch cannot set it here")
    try:
        kept_state(1, TINY)
        assert float(torch.tensor(TINY) * 1) == 0
    finally:
        torch.set_flush_denormal(False)


def test_on_arm_the_code_sets_the_control_register(monkeypatch):
    monkeypatch.setattr(subnormals, "_X86", False)
    monkeypatch.setattr(subnormals, "_ARM", True)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "turn")
    builder = ir.IRBuilder(function.append_basic_block())
    before = subnormals._settings(builder)
    subnormals._set(builder, builder.or_(before, before.type(subnormals.ARM_BITS)))
    subnormals._set(builder, before)
    builder.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine()
    lines = machine.emit_assembly(binding.parse_assembly(str(module))).lower().split("\n")
    steps = [line.split()[0] for line in lines if "fpcr" in line or "0x1000000" in line]
    assert steps == ["mrs", "orr", "msr", "msr"]
