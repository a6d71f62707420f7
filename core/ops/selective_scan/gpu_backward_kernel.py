"""The selective scan's backward kernel: replays a chunk from its saved state, then walks it from the end.

With g the gradient of y, carry = exp(Δ A) dh of the step after, and ā = exp(Δ A) times the state before the step:

    dh = C g + carry            dx = Δ (Σ_n dh B) + D g     dΔ = x (Σ_n dh B) + Σ_n dh A ā
    dA = Σ_t dh Δ ā             dB = Σ_c dh Δ x             dC = Σ_c g h

ā is computed from the state before the step, never as h - Δ x B, which cancels. Names and sizes: gpu_kernels.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gpu_kernels import (
    COUNTS,
    LN2,
    LOG2E,
    load_edge,
    load_gradients,
    load_parameter,
    load_states,
    load_steps,
    offsets_in_tile,
    place_of_program,
    sigmoid,
)


@triton.jit
def sum_channels(b_t):
    """(BR, BN, BW) -> (BN,)"""
    return tl.sum(tl.sum(b_t, axis=2), axis=0)


@triton.jit(do_not_specialize=COUNTS)
def scan_backward_kernel(
    p_x, p_delta, p_a, p_b, p_c, p_d, p_z, p_bias, p_order, p_seq, p_carry, p_grad_state, p_grad, p_chunks, p_scratch,
    p_dx, p_ddelta, p_da, p_db, p_dc, p_dd, p_dbias, p_dinitial,
    s_x, s_delta, s_b, s_c, s_z, s_order, s_seq, s_grad, scale,
    B, P, L, S, D, DG, N, NB, K, SEGMENT,
    SOFTPLUS: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr,
    BR: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Every gradient of one segment, from the carry that enters it at its end.

    Sums over programs are left to the caller, in a fixed order: dx, ddelta (B, P, L, D); dA (B, P, K, NB, tile);
    dB, dC (NB / G, B, P, L, G, N); dD, dbias (B, P, K, D). dinitial: (B, P, NB, tile). scratch: (programs,
    CHUNK / UNROLL, tile), used again for every chunk.
    """
    i_b, i_p, i_k, i_g, i_block, o_c, m_c = place_of_program(D, DG, NB, P, K, BR, BW)
    i_bp = i_b * P + i_p
    G = D // DG
    i_part = i_block % (NB // G)
    o_n = tl.arange(0, BN)
    m_n = o_n < N
    m_t = m_c[:, None, :] & m_n[None, :, None]
    p_x += i_b * s_x[0] + i_p * s_x[1]
    p_delta += i_b * s_delta[0] + i_p * s_delta[1]
    p_b += i_b * s_b[0] + i_p * s_b[1] + i_g * s_b[3]
    p_c += i_b * s_c[0] + i_p * s_c[1] + i_g * s_c[3]
    p_grad += i_b * s_grad[0] + i_p * s_grad[1]
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    if p_z is not None:
        p_z += i_b * s_z[0]
    p_dx += i_bp * L * D
    p_ddelta += i_bp * L * D
    p_db += ((i_part * B + i_b) * P + i_p) * L * G * N + i_g * N
    p_dc += ((i_part * B + i_b) * P + i_p) * L * G * N + i_g * N

    o_t = offsets_in_tile(BR, BN, BW)
    p_scratch += tl.program_id(0).to(tl.int64) * (CHUNK // UNROLL * BR * BN * BW) + o_t
    o_a = o_c[:, None, :] * N + o_n[None, :, None]
    b_a = tl.load(p_a + i_p * D * N + o_a, mask=m_t, other=0.0) * LOG2E
    b_bias = load_parameter(p_bias, i_p * D + o_c, m_c)
    b_d = load_parameter(p_d, i_p * D + o_c, m_c)
    b_carry = load_edge(p_carry, p_grad_state, i_bp, (i_bp * K + i_k) * NB + i_block, o_t, o_a, m_t, D, N)
    b_da = tl.zeros(m_t.shape, tl.float32)
    b_dd = tl.zeros(m_c.shape, tl.float32)
    b_dbias = tl.zeros(m_c.shape, tl.float32)

    first = i_k * SEGMENT
    n_chunks = (S + CHUNK - 1) // CHUNK
    begin = first + (tl.minimum(SEGMENT, S - first) - 1) // CHUNK * CHUNK
    while begin >= first:
        n_groups = (tl.minimum(CHUNK, S - begin) + UNROLL - 1) // UNROLL
        b_h = tl.load(p_chunks + ((i_bp * n_chunks + begin // CHUNK) * NB + i_block) * (BR * BN * BW) + o_t)
        tl.store(p_scratch, b_h)
        m = i_k * 0 + 1
        while m < n_groups:
            tokens, visits, begins, xs, dts, raws = load_steps(
                p_x, p_delta, p_order, p_seq, b_bias, o_c, m_c, begin + (m - 1) * UNROLL, S, L, s_x[2], s_delta[2],
                SOFTPLUS, WIDE, UNROLL,
            )  # fmt: skip
            bs = load_states(p_b, tokens, visits, s_b[2], o_n, N, UNROLL)
            for i in tl.static_range(UNROLL):
                if p_seq is not None:
                    b_h = tl.where(begins[i], 0.0, b_h)
                b_h = tl.exp2(dts[i][:, None, :] * b_a) * b_h + (dts[i] * xs[i])[:, None, :] * bs[i][None, :, None]
            tl.store(p_scratch + m * (BR * BN * BW), b_h)
            m += 1
        tl.debug_barrier()

        group = n_groups - 1
        while group >= 0:
            b_h = tl.load(p_scratch + group * (BR * BN * BW))
            tokens, visits, begins, xs, dts, raws = load_steps(
                p_x, p_delta, p_order, p_seq, b_bias, o_c, m_c, begin + group * UNROLL, S, L, s_x[2], s_delta[2],
                SOFTPLUS, WIDE, UNROLL,
            )  # fmt: skip
            bs = load_states(p_b, tokens, visits, s_b[2], o_n, N, UNROLL)
            cs = load_states(p_c, tokens, visits, s_c[2], o_n, N, UNROLL)
            gs = load_gradients(p_grad, p_z, tokens, visits, s_grad[2], s_z[1], o_c, m_c, scale, UNROLL)
            befores = ()
            for i in tl.static_range(UNROLL):
                if p_seq is not None:
                    b_h = tl.where(begins[i], 0.0, b_h)
                befores += (b_h,)
                b_h = tl.exp2(dts[i][:, None, :] * b_a) * b_h + (dts[i] * xs[i])[:, None, :] * bs[i][None, :, None]
            for i in tl.static_range(UNROLL - 1, -1, -1):
                b_x, b_dt, b_g = xs[i], dts[i], gs[i]
                b_u = (b_dt * b_x)[:, None, :]
                b_decay = tl.exp2(b_dt[:, None, :] * b_a)
                b_after = b_decay * befores[i]
                b_h = b_after + b_u * bs[i][None, :, None]
                b_dh = b_carry + b_g[:, None, :] * cs[i][None, :, None]
                b_carry = b_decay * b_dh
                if p_seq is not None:
                    b_carry = tl.where(begins[i], 0.0, b_carry)
                o_row = tokens[i] * G * N + o_n
                m_row = m_n & visits[i]
                tl.store(p_dc + o_row, sum_channels(b_g[:, None, :] * b_h), mask=m_row)
                tl.store(p_db + o_row, sum_channels(b_u * b_dh), mask=m_row)
                b_s = tl.sum(b_dh * bs[i][None, :, None], axis=1)
                b_after *= b_dh
                b_ddt = b_x * b_s + tl.sum(b_after * b_a, axis=1) * LN2
                b_da += b_after * b_dt[:, None, :]
                if SOFTPLUS:
                    b_ddt *= sigmoid(raws[i])
                b_ddt = tl.where(visits[i], b_ddt, 0.0)
                b_dd += b_g * b_x
                b_dbias += b_ddt
                m_y = m_c & visits[i]
                tl.store(p_dx + (tokens[i] * D + o_c), b_dt * b_s + b_d * b_g, mask=m_y)
                tl.store(p_ddelta + (tokens[i] * D + o_c), b_ddt, mask=m_y)
            group -= 1
        tl.debug_barrier()
        begin -= CHUNK

    o_k = i_bp * K + i_k
    tl.store(p_da + (o_k * NB + i_block) * (BR * BN * BW) + o_t, b_da)
    if p_dd is not None:
        tl.store(p_dd + o_k * D + o_c, b_dd, mask=m_c)
    if p_dbias is not None:
        tl.store(p_dbias + o_k * D + o_c, b_dbias, mask=m_c)
    if p_dinitial is not None and i_k == 0:
        tl.store(p_dinitial + (i_bp * NB + i_block) * (BR * BN * BW) + o_t, b_carry)
