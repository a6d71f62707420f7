"""The convolution of one token and its SiLU, for kernels of one token.

Such a kernel's record has conv_w (channels, W taps) and conv_b, bfloat16 where p.half is not 0, and the states conv_state
(0: zeros) and conv_after (batch, channels, K inputs), which may be one.
"""

from __future__ import annotations

from .dots import number
from .lane_math import ZERO, get, put, sigmoid
from .lanes import WIDTH, read_float, write_float
from .team import inlined


@inlined
def convolve(p, b, channels, row, first, last, silu):
    """Channels `first` to before `last` of sequence b: what lies at `row` becomes the convolution's output, or SiLU of it."""
    for c in range(first, last):
        write_float(row + 4 * c, _channel(p, c, 4 * (b * channels + c) * p.K, read_float(row + 4 * c)))
    if silu == 0:
        return
    for c in range(first, last, WIDTH):
        v = get(row + 4 * c, last - c)
        put(row + 4 * c, v * sigmoid(v), last - c)


@inlined
def _channel(p, c, here, now):
    """The output of channel c, whose state's row at `here` moves on by one."""
    past = p.W - 1
    y = number(p.conv_b, c, p.half) + now * number(p.conv_w, c * p.W + past, p.half)
    for i in range(p.K):
        before = ZERO
        if p.conv_state != 0:
            before = read_float(p.conv_state + here + 4 * i)
        tap = i - (p.K - past)
        if tap >= 0:
            y += before * number(p.conv_w, c * p.W + tap, p.half)
        if i > 0:
            write_float(p.conv_after + here + 4 * (i - 1), before)
    if p.K > 0:
        write_float(p.conv_after + here + 4 * (p.K - 1), now)
    return y
