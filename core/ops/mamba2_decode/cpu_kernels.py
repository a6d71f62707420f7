"""Numba kernel of one token through Mamba-2 mixers, one after the other, with the norms before them: five phases each.

Legend: b sequence, M model channels, c of D inner channels, H heads of P channels, G groups of B and C, E of the norm, S
states, W taps, K inputs kept by the convolution's state, row: z (D), x (D), B and C (G S each), step (H). Addresses are in
bytes. Weights are bfloat16 where p.half is not 0, dt_bias, A_log and the skip where p.log_half is not 0; everything else is
float32. The records of the mixers lie one behind the other.
"""

from __future__ import annotations

import numpy as np

from ..cpu import residual_norm
from ..cpu.dots import mean_square, multiply_rows, number, numbers, share
from ..cpu.lane_math import LOG2_E, ONE, ZERO, get, put, sigmoid, softplus
from ..cpu.lanes import WIDTH, exp2, fma, read_float, splat, sum_lanes, write_float
from ..cpu.phases import phase, record
from ..cpu.team import Kernel, inlined, record_at
from ..cpu.token_convolution import convolve

RECORD = record(
    f"""{residual_norm.FIELDS} x in_w in_b conv_w conv_b dt_b A_log skip gated_w out_w out_b conv_state ssm_state
    inner steps y out conv_after ssm_after batch M D H P G E S W K skip_channels normed norm_first enter half log_half more
    team in_tiers scan_tiers out_tiers""",
    phases=5,
    numbers="eps norm_eps low high",
)  # fmt: skip
BYTES = RECORD.itemsize


@inlined
def width(p):
    """Outputs of in_proj."""
    return 2 * p.D + 2 * p.G * p.S + p.H


@inlined
def project_in(p, item):
    """Rows of in_proj, the convolution of the channels that they give, and the step sizes."""
    first, last = share(item, width(p), p.team, p.in_tiers)
    multiply_rows(p.x, p.in_w, p.in_b, p.inner, first, last, p.batch, p.M, width(p), p.half)
    convolved = p.D + 2 * p.G * p.S
    for b in range(p.batch):
        row = p.inner + 4 * b * width(p)
        begin, end = max(first - p.D, 0), min(last - p.D, convolved)
        convolve(p, b, convolved, row + 4 * p.D, begin, end, 1)
        for h in range(max(first - p.D - convolved, 0), last - p.D - convolved):
            step = read_float(row + 4 * (p.D + convolved + h)) + number(p.dt_b, h, p.log_half)
            step = sum_lanes(softplus(splat(step))) / np.float32(WIDTH)
            step = min(max(step, np.float32(p.low)), np.float32(p.high))
            log_decay = step * sum_lanes(exp2(splat(number(p.A_log, h, p.log_half) * LOG2_E))) / np.float32(WIDTH)
            write_float(p.steps + 8 * (b * p.H + h), step)
            write_float(
                p.steps + 8 * (b * p.H + h) + 4, sum_lanes(exp2(splat(-log_decay * LOG2_E))) / np.float32(WIDTH)
            )


@inlined
def scan(p, item):
    """Channels of the scan: their states and outputs."""
    first, last = share(item, p.D, p.team, p.scan_tiers)
    for b in range(p.batch):
        row, y = p.inner + 4 * (b * width(p) + p.D), p.y + 4 * b * p.D
        state, after = p.ssm_state, p.ssm_after + 4 * b * p.D * p.S
        if state != 0:
            state += 4 * b * p.D * p.S
        for c in range(first, last):
            h, u = c // p.P, read_float(row + 4 * c)
            step, decay = p.steps + 8 * (b * p.H + h), splat(read_float(p.steps + 8 * (b * p.H + h) + 4))
            B = row + 4 * (p.D + h // (p.H // p.G) * p.S)
            added, told = splat(read_float(step) * u), splat(ZERO)
            for n in range(0, p.S, WIDTH):
                here, count = 4 * (c * p.S + n), p.S - n
                s = added * get(B + 4 * n, count)
                if state != 0:
                    s = fma(decay, get(state + here, count), s)
                put(after + here, s, count)
                told = fma(get(B + 4 * (p.G * p.S + n), count), s, told)
            skip = number(p.skip, c if p.skip_channels != 0 else h, p.log_half)
            write_float(y + 4 * c, sum_lanes(told) + skip * u)


@inlined
def gate(p, b, first, last):
    """Multiply channels of the scan's output by SiLU(z)."""
    z, y = p.inner + 4 * b * width(p), p.y + 4 * b * p.D
    for c in range(first, last, WIDTH):
        v = get(z + 4 * c, last - c)
        put(y + 4 * c, get(y + 4 * c, last - c) * (v * sigmoid(v)), last - c)


@inlined
def finish(p, item):
    """Gate and norm of one group of channels of one sequence."""
    size = p.D // p.E
    b, first = item // p.E, item % p.E * size
    last, y = first + size, p.y + 4 * b * p.D
    if p.norm_first == 0:
        gate(p, b, first, last)
    if p.normed != 0:
        scale = splat(ONE / np.sqrt(mean_square(y + 4 * first, size) + np.float32(p.eps)))
        for c in range(first, last, WIDTH):
            put(y + 4 * c, get(y + 4 * c, last - c) * scale * numbers(p.gated_w, c, last - c, p.half), last - c)
    if p.norm_first != 0:
        gate(p, b, first, last)


@inlined
def project_out(p, item):
    first, last = share(item, p.M, p.team, p.out_tiers)
    multiply_rows(p.y, p.out_w, p.out_b, p.out, first, last, p.batch, p.D, p.M, p.half)


_enter, _in, _scan, _finish, _out = (
    phase(work, RECORD, number)
    for number, work in enumerate((residual_norm.add_and_normalise, project_in, scan, finish, project_out))
)


def kernel(address):
    while True:
        p = record_at(address, RECORD)
        _enter(address, p, p.batch * p.enter)
        _in(address, p, p.team * p.in_tiers)
        _scan(address, p, p.team * p.scan_tiers)
        _finish(address, p, p.batch * p.E)
        _out(address, p, p.team * p.out_tiers)
        if p.more == 0:
            break
        address += BYTES


decode = Kernel(kernel, RECORD)
