"""Numba kernel of one token through Mamba mixers, one after the other, with the norms before them: six phases each.

Legend: b sequence, M model channels, c of D inner channels, R rank of the step, N states, W taps, K inputs kept by the
convolution's state. Addresses are in bytes. Weights are bfloat16 where p.half is not 0, A_log and the skip D where
p.log_half is not 0; everything else is float32. The records of the mixers lie one behind the other.
"""

from __future__ import annotations

import numpy as np

from ..cpu import residual_norm
from ..cpu.dots import mean_square, multiply_rows, number, numbers, share
from ..cpu.lane_math import LOG2_E, ONE, ZERO, get, get_bfloat16, put, sigmoid, softplus
from ..cpu.lanes import WIDTH, exp2, fma, read_float, splat, sum_lanes, write_float
from ..cpu.phases import phase, record
from ..cpu.team import Kernel, inlined, record_at
from ..cpu.token_convolution import convolve

RECORD = record(
    f"""{residual_norm.FIELDS} x in_w in_b conv_w conv_b x_w dt_w dt_b A_log skip out_w out_b norm_dt norm_B norm_C
    conv_state ssm_state inner told y out conv_after ssm_after batch M D R N W K gate enter half log_half norms more
    team in_tiers told_tiers scan_tiers out_tiers""",
    phases=6,
    numbers="eps norm_eps",
)  # fmt: skip
BYTES = RECORD.itemsize


@inlined
def project_in(p, item):
    """Rows of in_proj, and the convolution of the channels that they give."""
    width = p.D * (1 + p.gate)
    first, last = share(item, width, p.team, p.in_tiers)
    multiply_rows(p.x, p.in_w, p.in_b, p.inner, first, last, p.batch, p.M, width, p.half)
    for b in range(p.batch):
        convolve(p, b, p.D, p.inner + 4 * b * width, first, min(last, p.D), 1)


@inlined
def tell(p, item):
    """Rows of x_proj: the step's low-rank form, B and C."""
    width = p.R + 2 * p.N
    first, last = share(item, width, p.team, p.told_tiers)
    for b in range(p.batch):
        u, told = p.inner + 4 * b * p.D * (1 + p.gate), p.told + 4 * b * width
        multiply_rows(u, p.x_w, 0, told, first, last, 1, p.D, width, p.half)


@inlined
def normalise(p, item):
    """One of the three parts of what x_proj told, of one sequence."""
    b, part = item // 3, item % 3
    row, count, weight = p.told + 4 * b * (p.R + 2 * p.N), p.R, p.norm_dt
    if part > 0:
        row, count, weight = row + 4 * (p.R + (part - 1) * p.N), p.N, p.norm_B
    if part > 1:
        weight = p.norm_C
    scale = ONE / np.sqrt(mean_square(row, count) + np.float32(p.eps))
    for i in range(count):
        v = read_float(row + 4 * i) * scale
        if weight != 0:
            v *= number(weight, i, p.half)
        write_float(row + 4 * i, v)


def recurrences(get_logs, size):
    """The scan over a range of channels where A_log has elements of `size` bytes.

    y: the address of the step sizes of a sequence's channels, in whose place come the outputs; u, B, C as in the formula.
    """

    @inlined
    def run(p, b, first, last, y, u, B, C):
        N, state, after = p.N, p.ssm_state, p.ssm_after + 4 * b * p.D * p.N
        if state != 0:
            state += 4 * b * p.D * N
        for c in range(first, last):
            d = read_float(y + 4 * c)
            du, rate, told = splat(d * read_float(u + 4 * c)), splat(-d * LOG2_E), splat(ZERO)
            for n in range(0, N, WIDTH):
                count, here = N - n, c * N + n
                h = du * get(B + 4 * n, count)
                if state != 0:
                    decay = exp2(rate * exp2(get_logs(p.A_log + size * here, count) * splat(LOG2_E)))
                    h = fma(decay, get(state + 4 * here, count), h)
                put(after + 4 * here, h, count)
                told = fma(get(C + 4 * n, count), h, told)
            write_float(y + 4 * c, sum_lanes(told))

    return run


_recur_float32, _recur_bfloat16 = recurrences(get, 4), recurrences(get_bfloat16, 2)


@inlined
def gated(p, b, c, count):
    """A block of channels: what the skip and the gate make of the scan's outputs."""
    y, u = p.y + 4 * (b * p.D + c), p.inner + 4 * (b * p.D * (1 + p.gate) + c)
    v = fma(numbers(p.skip, c, count, p.log_half), get(u, count), get(y, count))
    if p.gate != 0:
        z = get(u + 4 * p.D, count)
        v = v * z * sigmoid(z)
    put(y, v, count)


@inlined
def scan(p, item):
    """Channels of the scan: step sizes, states and gate, one loop each.

    A loop over channels that did all three would read what it has just stored, and wait for every store before.
    """
    first, last = share(item, (p.D + WIDTH - 1) // WIDTH, p.team, p.scan_tiers)
    first, last = WIDTH * first, min(WIDTH * last, p.D)
    for b in range(p.batch):
        told, y, u = p.told + 4 * b * (p.R + 2 * p.N), p.y + 4 * b * p.D, p.inner + 4 * b * p.D * (1 + p.gate)
        multiply_rows(told, p.dt_w, p.dt_b, y, first, last, 1, p.R, p.D, p.half)
        for c in range(first, last, WIDTH):
            put(y + 4 * c, softplus(get(y + 4 * c, last - c)), last - c)
        B, C = told + 4 * p.R, told + 4 * (p.R + p.N)
        if p.log_half != 0:
            _recur_bfloat16(p, b, first, last, y, u, B, C)
        else:
            _recur_float32(p, b, first, last, y, u, B, C)
        for c in range(first, last, WIDTH):
            gated(p, b, c, last - c)


@inlined
def project_out(p, item):
    first, last = share(item, p.M, p.team, p.out_tiers)
    multiply_rows(p.y, p.out_w, p.out_b, p.out, first, last, p.batch, p.D, p.M, p.half)


_enter, _in, _told, _norms, _scan, _out = (
    phase(work, RECORD, number)
    for number, work in enumerate((residual_norm.add_and_normalise, project_in, tell, normalise, scan, project_out))
)


def kernel(address):
    while True:
        p = record_at(address, RECORD)
        _enter(address, p, p.batch * p.enter)
        _in(address, p, p.team * p.in_tiers)
        _told(address, p, p.team * p.told_tiers)
        _norms(address, p, 3 * p.batch * p.norms)
        _scan(address, p, p.team * p.scan_tiers)
        _out(address, p, p.team * p.out_tiers)
        if p.more == 0:
            break
        address += BYTES


decode = Kernel(kernel, RECORD)
