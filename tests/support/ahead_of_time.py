"""Compiling a Triton kernel for a GPU that is not there, and what the machine code needs."""

from __future__ import annotations

import re
import subprocess
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Numbers in each tuple of strides; pointers that are not to float32.
STRIDES = {"s_x": 3, "s_delta": 3, "s_b": 4, "s_c": 4, "s_rows": 4, "s_z": 2, "s_order": 2, "s_seq": 1, "s_grad": 3}
INTEGERS = {"p_order", "p_seq", "p_seg", "p_count"}
ACTIVATIONS = {"p_x", "p_delta", "p_b", "p_c", "p_rows", "p_z", "p_out", "p_grad", "p_dx", "p_ddelta", "p_dz"}
ACTIVATIONS |= {"p_c_rows", "p_y", "p_dy"}
MULTIPLES_OF_16 = {"D", "DG", "N", "P", "PN"}


def resources(
    kernel, architecture: int, dtype: str, warps: int, absent=(), most: int | None = None, strides=None, **constants
) -> dict[str, int]:
    """Registers a thread, bytes of stack and local memory (both 0 where nothing is spilled), bytes of shared memory.

    Args:
        kernel: a `triton.jit` function.
        architecture: 80, 90, ...
        dtype: of the activations: "bf16", "fp16" or "fp32".
        absent: parameters that are None.
        most: registers a thread may take.
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
        source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps, "maxnreg": most}
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
