"""A kernel that does nothing but raise 2 to powers: what the card's special function units can do."""

from __future__ import annotations

import triton
import triton.language as tl

REPEATS, KEPT = 512, 1024  # exponentials one after the other; numbers that a program works on


@triton.jit
def exponentials_kernel(p_out, repeats, KEPT: tl.constexpr):
    """out: (programs, KEPT)."""
    o_v = tl.arange(0, KEPT)
    b_v = o_v.to(tl.float32) * -0.0001
    i = tl.program_id(0) * 0
    while i < repeats:
        b_v = tl.exp2(-b_v)
        i += 1
    tl.store(p_out + tl.program_id(0).to(tl.int64) * KEPT + o_v, b_v)
