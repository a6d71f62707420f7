"""Triton kernels of the causal convolution: y_s = activation(bias + sum_w weight_w x_{s - (W - 1) + w}) along each path.

Names: p_ pointer, s_ strides of all axes but the last (whose stride is 1), b_ block of values, o_ offsets, m_ mask,
i_ program's place. Sizes: B batch, P paths, L tokens, S steps, D channels, W taps; a block is BS steps × BD channels.
A step before the first one, s < 0, is column W - 1 + s of the initial state (B, P, D, W - 1).
"""

from __future__ import annotations

import triton
import triton.language as tl

COUNTS = ("P", "L", "S")  # their values are not compiled in: no compiling per length


@triton.jit
def sigmoid(b_v):
    return 1.0 / (1.0 + tl.exp2(-b_v * 1.4426950408889634))


@triton.jit
def place_of_program(P, D, n_rows, BS: tl.constexpr, BD: tl.constexpr):
    """Batch, path, block of steps, its steps (BS, 1) counted from 0, and the block's channels (1, BD)."""
    i = tl.program_id(0)
    n_columns = (D + BD - 1) // BD
    i_column, i = i % n_columns, i // n_columns
    i_row, i = i % n_rows, i // n_rows
    i_p, i_b = i % P, i // P
    o_s = i_row * BS + tl.arange(0, BS)[:, None]
    return i_b.to(tl.int64), i_p.to(tl.int64), i_row, o_s, i_column * BD + tl.arange(0, BD)[None, :]


@triton.jit
def token_of_step(p_order, o_s, S, L):
    """The tokens visited at steps, and whether there is one: -1, a number beyond L, a step outside S mean none."""
    m_s = (o_s >= 0) & (o_s < S)
    if p_order is None:
        token = o_s.to(tl.int64)
    else:
        token = tl.load(p_order + o_s, mask=m_s, other=0).to(tl.int64)
        m_s = m_s & (token >= 0) & (token < L)
    return token, m_s


@triton.jit
def restarts_at(p_seq, p_order, o_s, S, L):
    """Where a new sequence begins; never at the first step of a path."""
    token, visited = token_of_step(p_order, o_s, S, L)
    before, _ = token_of_step(p_order, o_s - 1, S, L)
    before = tl.minimum(tl.maximum(before, 0), L - 1)
    m_s = visited & (o_s > 0)
    now = tl.load(p_seq + token, mask=m_s, other=0)
    return m_s & (now != tl.load(p_seq + before, mask=m_s, other=0))


@triton.jit
def load_history(p_x, p_order, p_state, o_s, o_c, x_row, S, L, D, W: tl.constexpr):
    """The inputs (BS, BD) at steps from -(W - 1) on: rows of x, or the initial state's columns."""
    token, visited = token_of_step(p_order, o_s, S, L)
    b_x = tl.load(p_x + token * x_row + o_c, mask=visited & (o_c < D), other=0.0).to(tl.float32)
    if p_state is not None:
        m_before = (o_s < 0) & (o_s > -W) & (o_c < D)
        b_x += tl.load(p_state + o_c * (W - 1) + (W - 1 + o_s), mask=m_before, other=0.0)
    return b_x


@triton.jit
def before_activation(
    p_x, p_weight, p_bias, p_order, p_seq, p_state, o_s, o_c, x_row, S, L, D, W: tl.constexpr
):  # fmt: skip
    """The convolution (BS, BD); pointers stand at this batch and path."""
    m_c = o_c < D
    b_y = tl.zeros([o_s.shape[0], o_c.shape[1]], tl.float32)
    if p_bias is not None:
        b_y += tl.load(p_bias + o_c, mask=m_c, other=0.0)
    reached = o_s >= 0
    for lag in tl.static_range(W):
        if lag > 0 and p_seq is not None:
            reached = reached & (restarts_at(p_seq, p_order, o_s - (lag - 1), S, L) == 0)
        b_w = tl.load(p_weight + o_c * W + (W - 1 - lag), mask=m_c, other=0.0)
        b_x = load_history(p_x, p_order, p_state, o_s - lag, o_c, x_row, S, L, D, W)
        b_y += tl.where(reached, b_x, 0.0) * b_w
    return b_y


@triton.jit(do_not_specialize=COUNTS)
def conv_kernel(
    p_x, p_weight, p_bias, p_order, p_seq, p_state, p_out, s_x, s_order, s_seq, P, L, S, D,
    SILU: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out: (B, P, L, D)."""
    i_b, i_p, _i_row, o_s, o_c = place_of_program(P, D, (S + BS - 1) // BS, BS, BD)
    p_x += i_b * s_x[0] + i_p * s_x[1]
    p_weight += i_p * D * W
    if p_bias is not None:
        p_bias += i_p * D
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    if p_state is not None:
        p_state += (i_b * P + i_p) * D * (W - 1)
    b_y = before_activation(p_x, p_weight, p_bias, p_order, p_seq, p_state, o_s, o_c, s_x[2], S, L, D, W)
    if SILU:
        b_y *= sigmoid(b_y)
    token, visited = token_of_step(p_order, o_s, S, L)
    tl.store(p_out + ((i_b * P + i_p) * L + token) * D + o_c, b_y, mask=visited & (o_c < D))


@triton.jit(do_not_specialize=COUNTS)
def conv_state_kernel(
    p_x, p_order, p_seq, p_state, p_count, p_final, s_x, s_order, s_seq, P, L, S, D,
    W: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The last W - 1 inputs of each path, final: (B, P, D, W - 1). count: (B, P), steps of each path; None: S."""
    i_b, i_p, _i_row, o_k, o_c = place_of_program(P, D, 1, BS, BD)
    p_x += i_b * s_x[0] + i_p * s_x[1]
    count = S
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
        count = tl.load(p_count + i_b * P + i_p)
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    if p_state is not None:
        p_state += (i_b * P + i_p) * D * (W - 1)
    o_s = count - (W - 1) + o_k
    kept = o_k < W - 1
    if p_seq is not None:
        for lag in tl.static_range(1, W - 1):
            kept = kept & ((restarts_at(p_seq, p_order, o_s + lag, S, L) & (o_s + lag < count)) == 0)
    b_x = load_history(p_x, p_order, p_state, o_s, o_c, s_x[2], S, L, D, W)
    p_final += (i_b * P + i_p) * D * (W - 1) + o_c * (W - 1) + o_k
    tl.store(p_final, tl.where(kept, b_x, 0.0), mask=(o_k < W - 1) & (o_c < D))


@triton.jit(do_not_specialize=COUNTS)
def conv_backward_weight_kernel(
    p_x, p_weight, p_bias, p_order, p_seq, p_state, p_grad, p_dpre, p_dweight, p_dbias,
    s_x, s_order, s_seq, s_grad, P, L, S, D,
    SILU: tl.constexpr, W: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient before the activation, dpre: (B, P, S, D) by step; one partial sum a block of steps of those of
    weight (B, P, blocks, W, D) and bias (B, P, blocks, D).
    """
    n_rows = (S + BS - 1) // BS
    i_b, i_p, i_row, o_s, o_c = place_of_program(P, D, n_rows, BS, BD)
    i_bp = i_b * P + i_p
    m_c = o_c < D
    p_x += i_b * s_x[0] + i_p * s_x[1]
    p_weight += i_p * D * W
    if p_bias is not None:
        p_bias += i_p * D
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    if p_state is not None:
        p_state += i_bp * D * (W - 1)
    token, visited = token_of_step(p_order, o_s, S, L)
    p_grad += i_b * s_grad[0] + i_p * s_grad[1] + token * s_grad[2] + o_c
    b_g = tl.load(p_grad, mask=visited & m_c, other=0.0).to(tl.float32)
    if SILU:
        b_y = before_activation(p_x, p_weight, p_bias, p_order, p_seq, p_state, o_s, o_c, s_x[2], S, L, D, W)
        b_s = sigmoid(b_y)
        b_g *= b_s * (1.0 + b_y * (1.0 - b_s))
    tl.store(p_dpre + (i_bp * S + o_s) * D + o_c, b_g, mask=(o_s < S) & m_c)
    o_part = i_bp * n_rows + i_row
    if p_dbias is not None:
        tl.store(p_dbias + o_part * D + o_c, tl.sum(b_g, axis=0)[None, :], mask=m_c)
    reached = o_s >= 0
    for lag in tl.static_range(W):
        if lag > 0 and p_seq is not None:
            reached = reached & (restarts_at(p_seq, p_order, o_s - (lag - 1), S, L) == 0)
        b_x = load_history(p_x, p_order, p_state, o_s - lag, o_c, s_x[2], S, L, D, W)
        b_dw = tl.sum(tl.where(reached, b_x, 0.0) * b_g, axis=0)[None, :]
        tl.store(p_dweight + (o_part * W + W - 1 - lag) * D + o_c, b_dw, mask=m_c)


@triton.jit(do_not_specialize=COUNTS)
def conv_backward_input_kernel(
    p_weight, p_order, p_seq, p_count, p_dpre, p_grad_state, p_dx, p_dinitial, s_x, s_order, s_seq, P, L, S, D,
    W: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """dx: (B, P, L, D), and for the steps -(W - 1) .. -1 before the first the initial state's gradient (B, P, D, W - 1)."""
    i_b, i_p, _i_row, o_s, o_c = place_of_program(P, D, (S + W - 1 + BS - 1) // BS, BS, BD)
    o_s -= W - 1
    i_bp = i_b * P + i_p
    m_c = o_c < D
    p_weight += i_p * D * W
    p_dpre += i_bp * S * D
    count = S
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
        count = tl.load(p_count + i_bp)
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    reached = o_s < count
    b_dx = tl.zeros([BS, BD], tl.float32)
    for lag in tl.static_range(W):
        o_y = o_s + lag
        if lag > 0 and p_seq is not None:
            reached = reached & (restarts_at(p_seq, p_order, o_y, S, L) == 0)
        b_w = tl.load(p_weight + o_c * W + (W - 1 - lag), mask=m_c, other=0.0)
        m_y = reached & (o_y >= 0) & (o_y < S) & m_c
        b_dx += tl.load(p_dpre + o_y.to(tl.int64) * D + o_c, mask=m_y, other=0.0) * b_w
    if p_grad_state is not None:
        o_k = o_s - count + (W - 1)
        m_k = reached & (o_k >= 0) & (o_k < W - 1) & m_c
        b_dx += tl.load(p_grad_state + i_bp * D * (W - 1) + o_c * (W - 1) + o_k, mask=m_k, other=0.0)
    token, visited = token_of_step(p_order, o_s, S, L)
    tl.store(p_dx + (i_bp * L + token) * D + o_c, b_dx, mask=visited & m_c)
    if p_dinitial is not None:
        m_before = (o_s < 0) & (o_s > -W) & m_c
        tl.store(p_dinitial + i_bp * D * (W - 1) + o_c * (W - 1) + (W - 1 + o_s), b_dx, mask=m_before)
