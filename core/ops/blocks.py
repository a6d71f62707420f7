"""Sizes of blocks and how many there are, in plain Python: Triton's functions of these names are made for kernels, and a call of
one takes as long as one that makes a tensor.
"""

from __future__ import annotations


def cdiv(numerator: int, denominator: int) -> int:
    """The quotient, rounded up."""
    return -(-numerator // denominator)


def next_power_of_2(number: int) -> int:
    """The least power of 2 that is not below a number; 1 for 0."""
    return 1 << max(0, number - 1).bit_length()
