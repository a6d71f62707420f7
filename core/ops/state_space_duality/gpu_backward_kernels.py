"""Triton kernels of the backward pass of state space duality. Names and sizes: gpu_kernels.py.

With h the state that enters a chunk, g the gradient of the state that leaves it, e_j = exp(c_last - c_j),
T_ij = (dy_i.x_j) (C_i.B_j) exp(c_i - c_j) and F as in the forward:

    dx_j = sum_i F_ij (C_i.B_j) dy_i + e_j w_j g B_j              dw_j = sum_{i later} T_ij + e_j x_j^T g B_j
    dC_i = sum_j F_ij (dy_i.x_j) B_j + exp(c_i) h^T dy_i          dB_j = sum_i F_ij (dy_i.x_j) C_i + e_j w_j g^T x_j

    dlog_decay_t = sum_{i >= t > j} T_ij w_j + sum_{i >= t} exp(c_i) dy_i^T h C_i + sum_{j < t} e_j w_j x_j^T g B_j
                   + exp(c_last) <g, h>

in which nothing is a difference of running sums. Heads of a group share B and C: their pairs are summed before they are
multiplied with B and C, head after head in one program.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gpu_kernels import COUNTS, decays, load_rows, load_state, pair_decays, pair_weights, pass_of_chunk, product


@triton.jit(do_not_specialize=COUNTS)
def grad_x_kernel(
    p_dy, p_x, p_b, p_c_rows, p_w, p_own, p_c, p_c_low, p_seg, p_states, p_grads,
    p_dx, p_dw, p_down, p_dlog, s_dy, s_x, s_b, s_c,
    L, K, H, HG,
    P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, KIND: tl.constexpr,
    BQ: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradients of x (B, L, H, P) and, a number a row, of weight, own weight and log_decay: (B, H, K, Q * R).

    states, grads: (B, K, H, P, N), what enters each chunk from its begin and from its end. The gradient of log_decay stands
    in each step's first row; the other rows of a step hold nothing of use.
    """
    i = tl.program_id(0)
    i_h, i = i % H, i // H
    i_k, i_b = i % K, (i // K).to(tl.int64)
    o_row = tl.arange(0, BQ)
    m_row = (o_row < Q * R) & (i_k * Q * R + o_row < L)
    first = i_k.to(tl.int64) * (Q * R)
    o_c, o_seg = ((i_b * H + i_h) * K + i_k) * Q, (i_b * K + i_k) * Q
    p_b += i_b * s_b[0] + first * s_b[1] + i_h // HG * s_b[2]
    p_c_rows += i_b * s_c[0] + first * s_c[1] + i_h // HG * s_c[2]
    p_x += i_b * s_x[0] + first * s_x[1] + i_h * s_x[2]
    p_dy += i_b * s_dy[0] + first * s_dy[1] + i_h * s_dy[2]
    p_dx += ((i_b * L + first) * H + i_h) * P
    p_states += ((i_b * K + i_k) * H + i_h) * P * N
    p_grads += ((i_b * K + i_k) * H + i_h) * P * N

    b_pairs = tl.zeros([BQ, BQ], tl.float32)
    for n in range(0, N, BN):
        o_n = n + tl.arange(0, BN)
        b_c = load_rows(p_c_rows, s_c[1], o_row, m_row, o_n, o_n < N)
        b_pairs += product(b_c, tl.trans(load_rows(p_b, s_b[1], o_row, m_row, o_n, o_n < N)), KIND)
    b_end = decays(p_c, p_c_low, p_seg, o_c, o_seg, o_row // R, Q, False)
    b_w = tl.load(p_w + o_c + o_row // R, mask=o_row // R < Q, other=0.0)

    b_met = tl.zeros([BQ, BQ], tl.float32)
    b_out, b_in, b_through = tl.zeros([BQ], tl.float32), tl.zeros([BQ], tl.float32), tl.zeros([BP], tl.float32)
    for p in range(0, P, BP):
        o_p = p + tl.arange(0, BP)
        b_gb, b_hc = tl.zeros([BQ, BP], tl.float32), tl.zeros([BQ, BP], tl.float32)
        for n in range(0, N, BN):
            o_n = n + tl.arange(0, BN)
            b_h, b_g = load_state(p_states, o_p, o_n, P, N), load_state(p_grads, o_p, o_n, P, N)
            b_through += tl.sum(b_h * b_g, axis=1)
            b_gb += product(load_rows(p_b, s_b[1], o_row, m_row, o_n, o_n < N), tl.trans(b_g), KIND)
            b_hc += product(load_rows(p_c_rows, s_c[1], o_row, m_row, o_n, o_n < N), tl.trans(b_h), KIND)
        b_x = load_rows(p_x, s_x[1], o_row, m_row, o_p, o_p < P)
        b_dy = load_rows(p_dy, s_dy[1], o_row, m_row, o_p, o_p < P)
        b_out += tl.sum(b_x.to(tl.float32) * b_gb, axis=1)
        b_in += tl.sum(b_dy.to(tl.float32) * b_hc, axis=1)
        b_met += product(b_dy, tl.trans(b_x), KIND)
        b_decay, m_earlier = pair_decays(p_c, p_c_low, p_seg, o_c, o_seg, Q, R, BQ)
        b_decay *= pair_weights(p_w, p_own, o_c, m_earlier, Q, R, BQ)
        b_dx = product(tl.trans(b_pairs * b_decay), b_dy, KIND) + (b_end * b_w)[:, None] * b_gb
        m_dx = m_row[:, None] & (o_p < P)[None, :]
        tl.store(p_dx + o_row[:, None] * (H * P) + o_p[None, :], b_dx, mask=m_dx)

    b_decay, m_earlier = pair_decays(p_c, p_c_low, p_seg, o_c, o_seg, Q, R, BQ)
    b_weights = pair_weights(p_w, p_own, o_c, m_earlier, Q, R, BQ)
    b_met *= b_pairs * b_decay
    o_v, m_v = o_c * R + o_row, o_row < Q * R
    tl.store(p_dw + o_v, tl.sum(tl.where(m_earlier, b_met, 0.0), axis=0) + b_end * b_out, mask=m_v)
    tl.store(p_down + o_v, tl.sum(tl.where(m_earlier, 0.0, b_met), axis=0), mask=m_v)
    b_in *= decays(p_c, p_c_low, p_seg, o_c, o_seg, o_row // R, Q, True)
    b_out *= b_end * b_w
    m_before = o_row[None, :] < o_row[:, None]
    b_from = tl.cumsum(tl.where(m_earlier, b_met * b_weights, 0.0), axis=0, reverse=True)
    b_edges = tl.where(m_before, b_out[None, :], b_in[None, :])
    b_dlog = tl.sum(tl.where(m_before, b_from, 0.0) + b_edges, axis=1)
    b_dlog += pass_of_chunk(p_c, p_c_low, p_seg, o_c, o_seg, Q) * tl.sum(b_through, axis=0)
    tl.store(p_dlog + o_v, b_dlog, mask=m_v)


@triton.jit(do_not_specialize=COUNTS)
def grad_bc_kernel(
    p_dy, p_x, p_b, p_c_rows, p_w, p_own, p_c, p_c_low, p_seg, p_states, p_grads, p_db, p_dc, s_dy, s_x, s_b, s_c,
    B, L, K, H, HG,
    HB: tl.constexpr, P: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, KIND: tl.constexpr,
    BQ: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """What HB heads of a group add to the gradients of B and C: (HG / HB, B, L, H / HG, N)."""
    i = tl.program_id(0)
    n_n, n_parts, n_groups = (N + BN - 1) // BN, HG // HB, H // HG
    i_n, i = i % n_n, i // n_n
    i_part, i = i % n_parts, i // n_parts
    i_g, i = i % n_groups, i // n_groups
    i_k, i_b = i % K, (i // K).to(tl.int64)
    o_row, o_n = tl.arange(0, BQ), i_n * BN + tl.arange(0, BN)
    m_row = (o_row < Q * R) & (i_k * Q * R + o_row < L)
    first = i_k.to(tl.int64) * (Q * R)
    o_seg = (i_b * K + i_k) * Q
    p_x += i_b * s_x[0] + first * s_x[1]
    p_dy += i_b * s_dy[0] + first * s_dy[1]

    b_pairs = tl.zeros([BQ, BQ], tl.float32)
    b_db, b_dc = tl.zeros([BQ, BN], tl.float32), tl.zeros([BQ, BN], tl.float32)
    for j in range(0, HB):
        i_h = i_g * HG + i_part * HB + j
        o_c, o_state = ((i_b * H + i_h) * K + i_k) * Q, ((i_b * K + i_k) * H + i_h) * P * N
        b_decay, m_earlier = pair_decays(p_c, p_c_low, p_seg, o_c, o_seg, Q, R, BQ)
        b_decay *= pair_weights(p_w, p_own, o_c, m_earlier, Q, R, BQ)
        b_in = decays(p_c, p_c_low, p_seg, o_c, o_seg, o_row // R, Q, True)
        b_out = decays(p_c, p_c_low, p_seg, o_c, o_seg, o_row // R, Q, False)
        b_out *= tl.load(p_w + o_c + o_row // R, mask=o_row // R < Q, other=0.0)
        for p in range(0, P, BP):
            o_p = p + tl.arange(0, BP)
            b_x = load_rows(p_x + i_h * s_x[2], s_x[1], o_row, m_row, o_p, o_p < P)
            b_dy = load_rows(p_dy + i_h * s_dy[2], s_dy[1], o_row, m_row, o_p, o_p < P)
            b_pairs += product(b_dy, tl.trans(b_x), KIND) * b_decay
            b_dy = b_dy.to(tl.float32) * b_in[:, None]
            b_dc += product(b_dy, load_state(p_states + o_state, o_p, o_n, P, N), KIND)
            b_x = b_x.to(tl.float32) * b_out[:, None]
            b_db += product(b_x, load_state(p_grads + o_state, o_p, o_n, P, N), KIND)
    b_b = load_rows(p_b + i_b * s_b[0] + first * s_b[1] + i_g * s_b[2], s_b[1], o_row, m_row, o_n, o_n < N)
    b_dc += product(b_pairs, b_b, KIND)
    b_c = load_rows(p_c_rows + i_b * s_c[0] + first * s_c[1] + i_g * s_c[2], s_c[1], o_row, m_row, o_n, o_n < N)
    b_db += product(tl.trans(b_pairs), b_c, KIND)
    o_v = (((i_part * B + i_b) * L + first) * n_groups + i_g) * N + o_row[:, None] * (n_groups * N) + o_n[None, :]
    m_v = m_row[:, None] & (o_n < N)[None, :]
    tl.store(p_db + o_v, b_db, mask=m_v)
    tl.store(p_dc + o_v, b_dc, mask=m_v)
