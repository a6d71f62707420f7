"""Triton kernels of state space duality: chunks of rows whose pairs are a product of matrices, and states between them.

With c the running sum of log_decay in a chunk, of a row's step (Mamba-2, arXiv 2405.21060, section 6):

    S = sum_j exp(c_last - c_j) w_j x_j B_j^T      what a chunk adds to the state      states_kernel
    h' = exp(c_last) h + S                         from chunk to chunk                 pass_kernel
    y_i = exp(c_i) h C_i + sum_j F_ij (C_i.B_j) x_j                                    output_kernel

F_ij = exp(c_i - c_j) w_j for earlier steps j, the own weight for rows of the same step, 0 for later ones. Nothing reaches
across a restart: `seg` counts them within the chunk. c is kept as a float32 and the rest that it leaves of a float64
(`c_low`): where one step forgets all, the differences after it still have all their digits.

Names: p_ pointer, s_ strides of axes (batch, row, head or group), b_ block of values, o_ offsets, m_ mask, i_ program's place.
Sizes:

    B batch, L rows of a sequence (steps times R), H heads, HG heads of a group, P headdim, N states, R rank
    K chunks, Q steps of a chunk; their rows are padded to a block of BQ, headdim to blocks of BP, states to blocks of BN
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
COUNTS = ("B", "L", "K")  # their values are not compiled in: no compiling per length


@triton.jit
def product(b_left, b_right, KIND: tl.constexpr):
    """A product of blocks, summed in float32. KIND: bfloat16 factors, or float32 ones in one ("tf32") or three passes."""
    if KIND == "bf16":
        b_out = tl.dot(b_left.to(tl.bfloat16), b_right.to(tl.bfloat16))
    else:
        b_out = tl.dot(b_left.to(tl.float32), b_right.to(tl.float32), input_precision=KIND)
    return b_out


@triton.jit
def exp(b_v):
    return tl.exp2(b_v * LOG2E)


@triton.jit
def load_rows(p_rows, row_stride, o_row, m_row, o_column, m_column):
    """Rows of a chunk as they are, (rows, columns), zero where there are none."""
    m_v = m_row[:, None] & m_column[None, :]
    return tl.load(p_rows + o_row[:, None] * row_stride + o_column[None, :], mask=m_v, other=0.0)


@triton.jit
def load_state(p_state, o_p, o_n, P, N):
    m_v = (o_p < P)[:, None] & (o_n < N)[None, :]
    return tl.load(p_state + o_p[:, None] * N + o_n[None, :], mask=m_v, other=0.0)


@triton.jit
def decays(p_c, p_c_low, p_seg, o_c, o_seg, b_step, Q: tl.constexpr, BACK: tl.constexpr):
    """What is left at the chunk's end of what each row adds; with BACK, at each row of what entered the chunk."""
    m_step = b_step < Q
    b_c = tl.load(p_c + o_c + b_step, mask=m_step, other=0.0)
    b_low = tl.load(p_c_low + o_c + b_step, mask=m_step, other=0.0)
    if BACK:
        b_v = exp(b_c + b_low)
    else:
        b_v = (tl.load(p_c + o_c + Q - 1) - b_c) + (tl.load(p_c_low + o_c + Q - 1) - b_low)
        b_v = exp(tl.minimum(b_v, 0.0))
    if p_seg is not None:
        b_seg = tl.load(p_seg + o_seg + b_step, mask=m_step, other=-1)
        if BACK:
            b_v = tl.where(b_seg == 0, b_v, 0.0)
        else:
            b_v = tl.where(b_seg == tl.load(p_seg + o_seg + Q - 1), b_v, 0.0)
    return tl.where(m_step, b_v, 0.0)


@triton.jit
def pass_of_chunk(p_c, p_c_low, p_seg, o_c, o_seg, Q: tl.constexpr):
    """What is left at the chunk's end of the state that entered it."""
    b_v = exp(tl.load(p_c + o_c + Q - 1) + tl.load(p_c_low + o_c + Q - 1))
    if p_seg is not None:
        b_v = tl.where(tl.load(p_seg + o_seg + Q - 1) == 0, b_v, 0.0)
    return b_v


@triton.jit
def pair_decays(p_c, p_c_low, p_seg, o_c, o_seg, Q: tl.constexpr, R: tl.constexpr, BQ: tl.constexpr):
    """exp(c_i - c_j) for rows j of earlier steps, 1 for those of the same, else 0: (BQ, BQ); and where j is earlier."""
    b_i = (tl.arange(0, BQ) // R)[:, None]
    b_j = (tl.arange(0, BQ) // R)[None, :]
    m_i, m_j = b_i < Q, b_j < Q
    b_d = tl.load(p_c + o_c + b_i, mask=m_i, other=0.0) - tl.load(p_c + o_c + b_j, mask=m_j, other=0.0)
    b_d += tl.load(p_c_low + o_c + b_i, mask=m_i, other=0.0) - tl.load(p_c_low + o_c + b_j, mask=m_j, other=0.0)
    m_earlier = (b_j < b_i) & m_i
    if p_seg is not None:
        b_seg = tl.load(p_seg + o_seg + b_i, mask=m_i, other=-1) == tl.load(p_seg + o_seg + b_j, mask=m_j, other=-1)
        m_earlier = m_earlier & b_seg
    b_v = tl.where(m_earlier, exp(tl.minimum(b_d, 0.0)), tl.where((b_i == b_j) & m_i, 1.0, 0.0))
    return b_v, m_earlier


@triton.jit
def pair_weights(p_w, p_own, o_c, m_earlier, Q: tl.constexpr, R: tl.constexpr, BQ: tl.constexpr):
    """The weight of row j for row i: (BQ, BQ), or (1, BQ) where own outputs know no other."""
    b_j = (tl.arange(0, BQ) // R)[None, :]
    b_w = tl.load(p_w + o_c + b_j, mask=b_j < Q, other=0.0)
    if p_own is not None:
        b_w = tl.where(m_earlier, b_w, tl.load(p_own + o_c + b_j, mask=b_j < Q, other=0.0))
    return b_w


@triton.jit(do_not_specialize=COUNTS)
def states_kernel(
    p_x, p_b, p_w, p_c, p_c_low, p_seg, p_states, s_x, s_b,
    L, K, H, HG,
    BACK: tl.constexpr, P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, KIND: tl.constexpr,
    BQ: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """What each chunk adds to the state; with BACK (x the gradient of y, B in truth C, no w) to the state's gradient.

    states: (B, K, H, P, N).
    """
    i = tl.program_id(0)
    n_p, n_n = (P + BP - 1) // BP, (N + BN - 1) // BN
    i_n, i = i % n_n, i // n_n
    i_p, i = i % n_p, i // n_p
    i_h, i = i % H, i // H
    i_k, i_b = i % K, (i // K).to(tl.int64)
    o_row = tl.arange(0, BQ)
    o_p, o_n = i_p * BP + tl.arange(0, BP), i_n * BN + tl.arange(0, BN)
    m_row = (o_row < Q * R) & (i_k * Q * R + o_row < L)
    o_c = ((i_b * H + i_h) * K + i_k) * Q
    b_scale = decays(p_c, p_c_low, p_seg, o_c, (i_b * K + i_k) * Q, o_row // R, Q, BACK)
    if p_w is not None:
        b_scale *= tl.load(p_w + o_c + o_row // R, mask=o_row // R < Q, other=0.0)
    first = i_k.to(tl.int64) * (Q * R)
    b_x = load_rows(p_x + i_b * s_x[0] + first * s_x[1] + i_h * s_x[2], s_x[1], o_row, m_row, o_p, o_p < P)
    b_b = load_rows(p_b + i_b * s_b[0] + first * s_b[1] + i_h // HG * s_b[2], s_b[1], o_row, m_row, o_n, o_n < N)
    b_h = product(tl.trans(b_x.to(tl.float32) * b_scale[:, None]), b_b, KIND)
    p_states += ((i_b * K + i_k) * H + i_h) * P * N
    tl.store(p_states + o_p[:, None] * N + o_n[None, :], b_h, mask=(o_p < P)[:, None] & (o_n < N)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def pass_kernel(
    p_states, p_c, p_c_low, p_seg, p_edge, p_last, K, H, PN, REVERSE: tl.constexpr, Q: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Turns what each chunk adds into what enters it (REVERSE: from the end), in place; p_last gets what leaves the last.

    states: (B, K, H, PN). edge: (B, H, PN) or None, what enters the first chunk. last: (B, H, PN) or None.
    """
    i = tl.program_id(0)
    n_blocks = (PN + BLOCK - 1) // BLOCK
    o_v = i % n_blocks * BLOCK + tl.arange(0, BLOCK)
    i_bh = (i // n_blocks).to(tl.int64)
    i_b, i_h = i_bh // H, i_bh % H
    m_v = o_v < PN
    if p_edge is None:
        b_h = tl.zeros([BLOCK], tl.float32)
    else:
        b_h = tl.load(p_edge + i_bh * PN + o_v, mask=m_v, other=0.0)
    j = i * 0
    while j < K:
        i_k = (K - 1 - j) if REVERSE else j
        p_v = p_states + ((i_b * K + i_k) * H + i_h) * PN + o_v
        b_add = tl.load(p_v, mask=m_v, other=0.0)
        tl.store(p_v, b_h, mask=m_v)
        b_h = pass_of_chunk(p_c, p_c_low, p_seg, (i_bh * K + i_k) * Q, (i_b * K + i_k) * Q, Q) * b_h + b_add
        j += 1
    if p_last is not None:
        tl.store(p_last + i_bh * PN + o_v, b_h, mask=m_v)


@triton.jit(do_not_specialize=COUNTS)
def output_kernel(
    p_x, p_b, p_c_rows, p_w, p_own, p_c, p_c_low, p_seg, p_states, p_y, s_x, s_b, s_c,
    L, K, H, HG,
    P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, KIND: tl.constexpr,
    BQ: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Outputs of a chunk from the state that enters it and its own rows. y: (B, L, H, P). c_rows: C."""
    i = tl.program_id(0)
    n_p = (P + BP - 1) // BP
    i_p, i = i % n_p, i // n_p
    i_h, i = i % H, i // H
    i_k, i_b = i % K, (i // K).to(tl.int64)
    o_row, o_p = tl.arange(0, BQ), i_p * BP + tl.arange(0, BP)
    m_row = (o_row < Q * R) & (i_k * Q * R + o_row < L)
    first = i_k.to(tl.int64) * (Q * R)
    o_c, o_seg = ((i_b * H + i_h) * K + i_k) * Q, (i_b * K + i_k) * Q
    p_b += i_b * s_b[0] + first * s_b[1] + i_h // HG * s_b[2]
    p_c_rows += i_b * s_c[0] + first * s_c[1] + i_h // HG * s_c[2]
    p_states += ((i_b * K + i_k) * H + i_h) * P * N
    b_pairs = tl.zeros([BQ, BQ], tl.float32)
    b_y = tl.zeros([BQ, BP], tl.float32)
    for n in range(0, N, BN):
        o_n = n + tl.arange(0, BN)
        b_c = load_rows(p_c_rows, s_c[1], o_row, m_row, o_n, o_n < N)
        b_pairs += product(b_c, tl.trans(load_rows(p_b, s_b[1], o_row, m_row, o_n, o_n < N)), KIND)
        b_y += product(b_c, tl.trans(load_state(p_states, o_p, o_n, P, N)), KIND)
    b_y *= decays(p_c, p_c_low, p_seg, o_c, o_seg, o_row // R, Q, True)[:, None]
    b_decay, m_earlier = pair_decays(p_c, p_c_low, p_seg, o_c, o_seg, Q, R, BQ)
    b_pairs *= b_decay * pair_weights(p_w, p_own, o_c, m_earlier, Q, R, BQ)
    b_x = load_rows(p_x + i_b * s_x[0] + first * s_x[1] + i_h * s_x[2], s_x[1], o_row, m_row, o_p, o_p < P)
    b_y += product(b_pairs, b_x, KIND)
    o_y = ((i_b * L + first) * H + i_h) * P + o_row[:, None] * (H * P) + o_p[None, :]
    tl.store(p_y + o_y, b_y, mask=m_row[:, None] & (o_p < P)[None, :])
