"""Compiling a Triton kernel for a GPU that is not there, and what the machine code needs."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from polymamba.core.ops.causal_conv1d import registration as convolution
from polymamba.core.ops.selective_scan import gpu as scan_gpu
from polymamba.core.ops.selective_scan import registration as scan
from polymamba.core.ops.state_space_duality import gpu as duality_gpu
from polymamba.core.ops.state_space_duality import registration as duality

# Numbers in each tuple of strides; pointers that are not to float32.
STRIDES = {"s_x": 3, "s_delta": 3, "s_b": 4, "s_c": 4, "s_rows": 4, "s_z": 2, "s_order": 2, "s_seq": 1, "s_grad": 3}
INTEGERS = {"p_order", "p_seq", "p_seg", "p_count"}
ACTIVATIONS = {"p_x", "p_delta", "p_b", "p_c", "p_rows", "p_z", "p_out", "p_grad", "p_dx", "p_ddelta", "p_dz"}
ACTIVATIONS |= {"p_c_rows", "p_y", "p_dy"}
MULTIPLES_OF_16 = {"D", "DG", "N", "P", "PN"}


def resources(
    kernel,
    architecture: int,
    dtype: str,
    warps: int,
    absent=(),
    most: int | None = None,
    strides=None,
    stages: int = 3,
    **constants,
) -> dict[str, int]:
    """Registers a thread, bytes of stack and local memory (both 0 where nothing is spilled), bytes of shared memory.

    Args:
        kernel: a `triton.jit` function.
        architecture: 80, 90, ...
        dtype: of the activations: "bf16", "fp16" or "fp32".
        absent: parameters that are None.
        most: registers a thread may take.
        stages: of pipelined loops.
        strides: numbers in a tuple of strides, where not those of STRIDES.
        constants: values of the compile-time parameters; more than the kernel has are ignored.
    """
    signature, values, attributes, axes = {}, {}, {}, STRIDES | (strides or {})
    for place, parameter in enumerate(kernel.params):
        name = parameter.name
        if parameter.is_constexpr or name in absent:
            signature[name], values[name] = "constexpr", None if name in absent else constants[name]
        elif name.startswith("p_"):
            signature[name] = "*i32" if name in INTEGERS else f"*{dtype if name in ACTIVATIONS else 'fp32'}"
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif name.startswith("s_"):
            signature[name] = ("i32",) * axes[name]
            attributes |= {(place, axis): [["tt.divisibility", 16]] for axis in range(axes[name])}
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
            if name in MULTIPLES_OF_16:
                attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, attributes)
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": warps, "maxnreg": most, "num_stages": stages},
    )
    return _usage(compiled.asm["cubin"]) | {"shared": compiled.metadata.shared}


def _usage(cubin: bytes) -> dict[str, int]:
    program = triton.knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([program, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", done.stdout).groups()
    return {"registers": int(registers), "stack": int(stack), "local": int(local)}


@dataclass(frozen=True)
class Launch:
    """A kernel in the configuration in which it is launched, for one architecture.

    signature: types of its arguments, and what is compiled in. programs: most of all its launches. warps, registers, stack,
    local, shared: of a program; see `resources`.
    """

    kernel: str
    signature: str
    warps: int
    programs: int
    registers: int
    stack: int
    local: int
    shared: int


class _Card:
    """Triton's driver for a card that is not there."""

    def __init__(self, architecture: int):
        self.architecture = architecture

    def get_current_device(self) -> int:
        return self.architecture  # kernels are kept by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


class _Kernels(TorchDispatchMode):
    """Operators run their GPU backend's host code on tensors without numbers, where PyTorch would ask for shapes alone."""

    _BODIES = {  # noqa: RUF012
        operator._opoverload: operator._init_fn
        for module in (scan, convolution, duality)
        for operator in (module._forward, module._backward)
    }

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        return self._BODIES.get(function, function)(*arguments, **(keywords or {}))


@contextmanager
def launches(architecture: int, processors: int = 132) -> Iterator[list[Launch]]:
    """What is launched within, by operators on tensors of the meta device; filled when the block ends.

    Kernels are compiled as on a card with so many multiprocessors and none is run.
    """
    found, compiled, run = [], {}, JITFunction.run

    def record(self, *arguments, grid, warmup, **options):
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        _, most = compiled.get(id(kernel), (kernel, 0))
        compiled[id(kernel)] = kernel, max(most, grid[0])
        return kernel

    triton.runtime.driver.set_active(_Card(architecture))
    try:
        with (
            mock.patch.object(JITFunction, "run", record),
            mock.patch.object(scan_gpu, "_card", return_value=(processors, architecture // 10)),
            mock.patch.object(duality_gpu, "_processors", return_value=processors),
            _Kernels(),
        ):
            yield found
    finally:
        triton.runtime.driver._active = None
    for kernel, programs in compiled.values():
        source, usage = kernel.src, _usage(kernel.asm["cubin"])
        fixed = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items() if len(path) == 1}
        signature = f"{[t for t in source.signature.values() if t != 'constexpr']} {fixed}"
        found.append(
            Launch(kernel.name, signature, kernel.metadata.num_warps, programs, **usage, shared=kernel.metadata.shared)
        )
