"""Triton kernels of the selective scan: one program walks one path for one block of channels, its state in registers.

Forward:   h = exp(Δ A) h + Δ x B,  y = C h + D x                       (Mamba, arXiv 2312.00752, eq. 2)
Backward:  dh = C g + carry,  carry = exp(Δ A) dh  towards the step before, and from dh every other gradient.

Names: p_ pointer, s_ row strides (one for each axis before the last, whose stride is 1), b_ block of values, o_ offsets,
m_ mask, i_ program's place. Sizes:

    B batch, P paths, L tokens, S steps, D channels, G groups, DG channels of a group, N states
    K segments of a path, SEGMENT steps in each of them (all of S where the length is not split)
    CHUNK steps between two saved states, UNROLL steps whose rows are loaded together
    BR x BW channels of a block, BN states padded to a power of two: the state is a tile (BR, BN, BW). Two axes for the
    channels let the compiler spread 8 of them and 4 states over the 32 lanes of a warp, so that sums over either need
    few shuffles. States that only kernels read (saved states, carries) lie in memory as whole tiles, padding included:
    then their addresses are one number and constants, where strides would keep a register for every element.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
COUNTS = (
    "B",
    "P",
    "Q",
    "L",
    "S",
    "NB",
    "K",
    "SEGMENT",
    "ROWS",
)  # their values are not compiled in: no compiling per length


@triton.jit
def softplus(b_v):
    """log(1 + exp(v)) as max(v, 0) + log1p(u), u = exp(-|v|), log1p(u) = 2 atanh(u / (2 + u)): right to the last bits for
    small u too, where log(1 + u) loses them.
    """
    b_u = tl.exp2(-tl.abs(b_v) * LOG2E)
    b_s = b_u / (2.0 + b_u)
    b_q = b_s * b_s
    b_r = b_q * (1.0 / 15) + 1.0 / 13
    b_r = b_r * b_q + 1.0 / 11
    b_r = b_r * b_q + 1.0 / 9
    b_r = b_r * b_q + 1.0 / 7
    b_r = b_r * b_q + 1.0 / 5
    b_r = b_r * b_q + 1.0 / 3
    b_r = b_r * b_q + 1.0
    return tl.maximum(b_v, 0.0) + 2.0 * b_s * b_r


@triton.jit
def sigmoid(b_v):
    return 1.0 / (1.0 + tl.exp2(-b_v * LOG2E))


@triton.jit
def place_of_program(D, DG, NB, P, K, BR: tl.constexpr, BW: tl.constexpr):
    """Batch, path, segment, group and block of this program, and the block's channels (BR, BW) with their mask.

    NB is the number of channel blocks of all groups; a block never reaches into the next group.
    """
    i = tl.program_id(0)
    i_block, i = i % NB, i // NB
    i_k, i = i % K, i // K
    i_p, i_b = i % P, i // P
    blocks_of_group = NB // (D // DG)
    i_g = i_block // blocks_of_group
    o_row = tl.arange(0, BR)[:, None] * BW + tl.arange(0, BW)[None, :]
    o_row += (i_block % blocks_of_group) * (BR * BW)
    return i_b.to(tl.int64), i_p.to(tl.int64), i_k, i_g, i_block, i_g * DG + o_row, o_row < DG


@triton.jit
def token_of_step(p_order, t, S, L, WIDE: tl.constexpr):
    """The token visited at step t, and whether there is one: -1, a number beyond L, a step beyond S mean none.

    The token is a 64-bit number where WIDE, else 32: its products with row strides then keep one register for the channel
    instead of a pointer for every tensor.
    """
    if p_order is None:
        token = t
        visited = t < S
    else:
        token = tl.load(p_order + t, mask=t < S, other=0)
        visited = (t < S) & (token >= 0) & (token < L)
    return token.to(tl.int64 if WIDE else tl.int32), visited


@triton.jit
def restarts_at(p_seq, p_order, t, token, visited, S, L, WIDE: tl.constexpr):
    """Whether a new sequence begins at step t; never at the first step of a path."""
    before, _ = token_of_step(p_order, tl.maximum(t - 1, 0), S, L, WIDE)
    before = tl.minimum(tl.maximum(before, 0), L - 1)
    now = tl.load(p_seq + token, mask=visited, other=0)
    return visited & (t > 0) & (now != tl.load(p_seq + before, mask=visited, other=0))


@triton.jit
def load_steps(
    p_x, p_delta, p_order, p_seq, b_bias, o_c, m_c, t, S, L, x_row, delta_row, SOFTPLUS: tl.constexpr,
    WIDE: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Tokens, visits, restarts, x, Δ and δ (before softplus) of UNROLL steps from t on, as tuples.

    Loaded before the first use and before any store, so that the loads are in flight together. Where no token is visited
    Δ and x are 0, which leaves the state as it is.
    """
    tokens = ()
    visits = ()
    begins = ()
    xs = ()
    dts = ()
    raws = ()
    for i in tl.static_range(UNROLL):
        token, visited = token_of_step(p_order, t + i, S, L, WIDE)
        m_x = m_c & visited
        xs += (tl.load(p_x + (token * x_row + o_c), mask=m_x, other=0.0).to(tl.float32),)
        b_raw = tl.load(p_delta + (token * delta_row + o_c), mask=m_x, other=0.0).to(tl.float32) + b_bias
        raws += (b_raw,)
        if SOFTPLUS:
            b_raw = softplus(b_raw)
        dts += (tl.where(m_x, b_raw, 0.0),)
        if p_seq is None:
            begins += (False,)
        else:
            begins += (restarts_at(p_seq, p_order, t + i, token, visited, S, L, WIDE),)
        tokens += (token,)
        visits += (visited,)
    return tokens, visits, begins, xs, dts, raws


@triton.jit
def load_states(p_rows, tokens, visits, row, o_n, N, UNROLL: tl.constexpr):
    """The rows (BN,) of B or C at UNROLL tokens, as a tuple."""
    rows = ()
    for i in tl.static_range(UNROLL):
        rows += (tl.load(p_rows + (tokens[i] * row + o_n), mask=(o_n < N) & visits[i], other=0.0).to(tl.float32),)
    return rows


@triton.jit
def load_gradients(p_grad, p_z, tokens, visits, grad_row, z_row, o_c, m_c, scale, UNROLL: tl.constexpr):
    """The gradients of y (BR, BW) at UNROLL tokens, from those of the merged and gated output, as a tuple."""
    rows = ()
    for i in tl.static_range(UNROLL):
        m_x = m_c & visits[i]
        b_g = tl.load(p_grad + (tokens[i] * grad_row + o_c), mask=m_x, other=0.0).to(tl.float32) * scale
        if p_z is not None:
            b_z = tl.load(p_z + (tokens[i] * z_row + o_c), mask=m_x, other=0.0).to(tl.float32)
            b_g *= b_z * sigmoid(b_z)
        rows += (b_g,)
    return rows


@triton.jit
def load_parameter(p_v, o_v, m_v):
    """A row (BR, BW) of D or of the bias, 0 where there is none."""
    if p_v is None:
        b_v = tl.zeros(o_v.shape, tl.float32)
    else:
        b_v = tl.load(p_v + o_v, mask=m_v, other=0.0).to(tl.float32)
    return b_v


@triton.jit
def offsets_in_tile(BR: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr):
    o_n = tl.arange(0, BN)[None, :, None]
    return (tl.arange(0, BR)[:, None, None] * BN + o_n) * BW + tl.arange(0, BW)[None, None, :]


@triton.jit
def load_edge(p_carry, p_edge, i_bp, o_k, o_t, o_a, m_t, D, N):
    """What enters the segment: its carry (tile o_k) where the length is split, else the edge (B, P, D, N), else 0."""
    if p_carry is not None:
        b_v = tl.load(p_carry + o_k * (m_t.numel) + o_t)
    elif p_edge is not None:
        b_v = tl.load(p_edge + i_bp * D * N + o_a, mask=m_t, other=0.0).to(tl.float32)
    else:
        b_v = tl.zeros(m_t.shape, tl.float32)
    return b_v


@triton.jit(do_not_specialize=COUNTS)
def scan_kernel(
    p_x, p_delta, p_a, p_b, p_c, p_d, p_z, p_bias, p_order, p_seq, p_carry, p_initial,
    p_out, p_ungated, p_chunks, p_final,
    s_x, s_delta, s_b, s_c, s_z, s_order, s_seq,
    P, L, S, D, DG, N, NB, K, SEGMENT,
    SOFTPLUS: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr,
    BR: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Outputs of one segment from the state that enters it; with p_chunks also the state at each chunk's begin.

    out and ungated: (B, P, L, D), gated where z is given. chunks: (B, P, ceil(S / CHUNK), NB, tile). final: (B, P, D, N).
    """
    i_b, i_p, i_k, i_g, i_block, o_c, m_c = place_of_program(D, DG, NB, P, K, BR, BW)
    i_bp = i_b * P + i_p
    o_n = tl.arange(0, BN)
    m_t = m_c[:, None, :] & (o_n < N)[None, :, None]
    p_x += i_b * s_x[0] + i_p * s_x[1]
    p_delta += i_b * s_delta[0] + i_p * s_delta[1]
    p_b += i_b * s_b[0] + i_p * s_b[1] + i_g * s_b[3]
    p_c += i_b * s_c[0] + i_p * s_c[1] + i_g * s_c[3]
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    if p_z is not None:
        p_z += i_b * s_z[0]
    p_out += i_bp * L * D
    if p_ungated is not None:
        p_ungated += i_bp * L * D

    o_a = o_c[:, None, :] * N + o_n[None, :, None]
    b_a = tl.load(p_a + i_p * D * N + o_a, mask=m_t, other=0.0) * LOG2E
    b_bias = load_parameter(p_bias, i_p * D + o_c, m_c)
    b_d = load_parameter(p_d, i_p * D + o_c, m_c)
    o_t = offsets_in_tile(BR, BN, BW)
    b_h = load_edge(p_carry, p_initial, i_bp, (i_bp * K + i_k) * NB + i_block, o_t, o_a, m_t, D, N)
    n_chunks = (S + CHUNK - 1) // CHUNK
    t = i_k * SEGMENT
    end = tl.minimum(t + SEGMENT, S)
    while t < end:
        if p_chunks is not None and t % CHUNK == 0:
            tl.store(p_chunks + ((i_bp * n_chunks + t // CHUNK) * NB + i_block) * (BR * BN * BW) + o_t, b_h)
        tokens, visits, begins, xs, dts, _raws = load_steps(
            p_x, p_delta, p_order, p_seq, b_bias, o_c, m_c, t, S, L, s_x[2], s_delta[2], SOFTPLUS, WIDE, UNROLL
        )
        bs = load_states(p_b, tokens, visits, s_b[2], o_n, N, UNROLL)
        cs = load_states(p_c, tokens, visits, s_c[2], o_n, N, UNROLL)
        for i in tl.static_range(UNROLL):
            if p_seq is not None:
                b_h = tl.where(begins[i], 0.0, b_h)
            b_h = tl.exp2(dts[i][:, None, :] * b_a) * b_h + (dts[i] * xs[i])[:, None, :] * bs[i][None, :, None]
            b_y = tl.sum(b_h * cs[i][None, :, None], axis=1) + b_d * xs[i]
            m_y = m_c & visits[i]
            o_y = tokens[i] * D + o_c
            if p_ungated is not None:
                tl.store(p_ungated + o_y, b_y, mask=m_y)
            if p_z is not None:
                b_z = tl.load(p_z + (tokens[i] * s_z[1] + o_c), mask=m_y, other=0.0).to(tl.float32)
                b_y *= b_z * sigmoid(b_z)
            tl.store(p_out + o_y, b_y, mask=m_y)
        t += UNROLL
    m_final = m_t & (i_k == K - 1)
    tl.store(p_final + i_bp * D * N + o_a, b_h, mask=m_final)


@triton.jit(do_not_specialize=COUNTS)
def segment_kernel(
    p_x, p_delta, p_a, p_rows, p_z, p_bias, p_order, p_seq, p_grad,
    p_carry, p_sum,
    s_x, s_delta, s_rows, s_z, s_order, s_seq, s_grad, scale,
    P, L, S, D, DG, N, NB, K, SEGMENT,
    SOFTPLUS: tl.constexpr, WIDE: tl.constexpr, REVERSE: tl.constexpr, UNROLL: tl.constexpr,
    BR: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """What a segment that is entered with 0 hands on: its last state, or with REVERSE the carry at its begin.

    rows: B, or with REVERSE C. carry: (B, P, K, NB, tile). sum: (B, P, K, D), the segment's sum of Δ, from which its whole
    decay is exp(A sum); infinite where a restart cuts the segment, so that nothing passes through it.
    """
    i_b, i_p, i_k, i_g, i_block, o_c, m_c = place_of_program(D, DG, NB, P, K, BR, BW)
    o_n = tl.arange(0, BN)
    m_t = m_c[:, None, :] & (o_n < N)[None, :, None]
    p_x += i_b * s_x[0] + i_p * s_x[1]
    p_delta += i_b * s_delta[0] + i_p * s_delta[1]
    p_rows += i_b * s_rows[0] + i_p * s_rows[1] + i_g * s_rows[3]
    if p_order is not None:
        p_order += i_b * s_order[0] + i_p * s_order[1]
    if p_seq is not None:
        p_seq += i_b * s_seq[0]
    if REVERSE:
        p_grad += i_b * s_grad[0] + i_p * s_grad[1]
        if p_z is not None:
            p_z += i_b * s_z[0]

    o_a = o_c[:, None, :] * N + o_n[None, :, None]
    b_a = tl.load(p_a + i_p * D * N + o_a, mask=m_t, other=0.0) * LOG2E
    b_bias = load_parameter(p_bias, i_p * D + o_c, m_c)
    b_h = tl.zeros(m_t.shape, tl.float32)
    b_sum = tl.zeros(m_c.shape, tl.float32)
    first = i_k * SEGMENT
    n_groups = (tl.minimum(SEGMENT, S - first) + UNROLL - 1) // UNROLL
    j = n_groups * 0
    while j < n_groups:
        t = first + ((n_groups - 1 - j) if REVERSE else j) * UNROLL
        tokens, visits, begins, xs, dts, _raws = load_steps(
            p_x, p_delta, p_order, p_seq, b_bias, o_c, m_c, t, S, L, s_x[2], s_delta[2], SOFTPLUS, WIDE, UNROLL
        )
        rows = load_states(p_rows, tokens, visits, s_rows[2], o_n, N, UNROLL)
        if REVERSE:
            us = load_gradients(p_grad, p_z, tokens, visits, s_grad[2], s_z[1], o_c, m_c, scale, UNROLL)
            for i in tl.static_range(UNROLL - 1, -1, -1):
                b_h = tl.exp2(dts[i][:, None, :] * b_a) * (b_h + us[i][:, None, :] * rows[i][None, :, None])
                b_sum += dts[i]
                if p_seq is not None:
                    b_h = tl.where(begins[i], 0.0, b_h)
                    b_sum = tl.where(begins[i], float("inf"), b_sum)
        else:
            for i in tl.static_range(UNROLL):
                if p_seq is not None:
                    b_h = tl.where(begins[i], 0.0, b_h)
                    b_sum = tl.where(begins[i], float("inf"), b_sum)
                b_h = tl.exp2(dts[i][:, None, :] * b_a) * b_h + (dts[i] * xs[i])[:, None, :] * rows[i][None, :, None]
                b_sum += dts[i]
        j += 1
    o_k = (i_b * P + i_p) * K + i_k
    tl.store(p_carry + (o_k * NB + i_block) * (BR * BN * BW) + offsets_in_tile(BR, BN, BW), b_h)
    tl.store(p_sum + o_k * D + o_c, b_sum, mask=m_c)


@triton.jit(do_not_specialize=COUNTS)
def chain_kernel(
    p_carry, p_sum, p_a, p_edge, P, D, DG, N, NB, K, REVERSE: tl.constexpr,
    BR: tl.constexpr, BN: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Turns what each segment hands on when entered with 0 into what enters each segment; in place, K short steps.

    carry: (B, P, K, NB, tile). sum: (B, P, K, D). edge: (B, P, D, N) or None, what enters the first (REVERSE: last) segment.
    """
    i_b, i_p, i_one, _i_g, i_block, o_c, m_c = place_of_program(D, DG, NB, P, 1, BR, BW)
    i_bp = i_b * P + i_p
    o_n = tl.arange(0, BN)
    m_t = m_c[:, None, :] & (o_n < N)[None, :, None]
    o_a = o_c[:, None, :] * N + o_n[None, :, None]
    o_t = offsets_in_tile(BR, BN, BW)
    b_a = tl.load(p_a + i_p * D * N + o_a, mask=m_t, other=0.0) * LOG2E
    b_h = load_edge(None, p_edge, i_bp, 0, o_t, o_a, m_t, D, N)
    j = i_one * 0
    while j < K:
        o_k = i_bp * K + ((K - 1 - j) if REVERSE else j)
        p_t = p_carry + (o_k * NB + i_block) * (BR * BN * BW) + o_t
        b_sum = tl.load(p_sum + o_k * D + o_c, mask=m_c, other=0.0)[:, None, :]
        b_end = tl.load(p_t)
        tl.store(p_t, b_h)
        whole = b_sum < float("inf")
        b_h = tl.where(whole, tl.exp2(tl.where(whole, b_sum, 0.0) * b_a) * b_h, 0.0) + b_end
        j += 1


@triton.jit(do_not_specialize=COUNTS)
def merge_kernel(
    p_parts, p_z, p_out, p_ungated, s_z, scale, P, L, D, ROWS, BL: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """The paths' outputs (B, P, L, D) summed in order, scaled, and gated where z is given: (B, L, D). ROWS = B L."""
    n_blocks = (D + BD - 1) // BD
    i = tl.program_id(0)
    o_row = ((i // n_blocks).to(tl.int64) * BL + tl.arange(0, BL))[:, None]
    o_c = (i % n_blocks) * BD + tl.arange(0, BD)[None, :]
    m_v = (o_row < ROWS) & (o_c < D)
    i_b, o_l = o_row // L, o_row % L
    b_v = tl.zeros([BL, BD], tl.float32)
    i_p = i * 0
    while i_p < P:
        b_v += tl.load(p_parts + ((i_b * P + i_p) * L + o_l) * D + o_c, mask=m_v, other=0.0)
        i_p += 1
    b_v *= scale
    if p_ungated is not None:
        tl.store(p_ungated + o_row * D + o_c, b_v, mask=m_v)
    if p_z is not None:
        b_z = tl.load(p_z + i_b * s_z[0] + o_l * s_z[1] + o_c, mask=m_v, other=0.0).to(tl.float32)
        b_v *= b_z * sigmoid(b_z)
    tl.store(p_out + o_row * D + o_c, b_v, mask=m_v)


@triton.jit(do_not_specialize=COUNTS)
def gate_backward_kernel(
    p_grad, p_ungated, p_z, p_dz, s_z, s_grad, Q, L, D, ROWS, BL: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """The gate's gradient (B, L, D) from grad and ungated (B, Q, L, D), Q = P where the paths are not merged, else 1."""
    n_blocks = (D + BD - 1) // BD
    i = tl.program_id(0)
    o_row = ((i // n_blocks).to(tl.int64) * BL + tl.arange(0, BL))[:, None]
    o_c = (i % n_blocks) * BD + tl.arange(0, BD)[None, :]
    m_v = (o_row < ROWS) & (o_c < D)
    i_b, o_l = o_row // L, o_row % L
    b_v = tl.zeros([BL, BD], tl.float32)
    i_q = i * 0
    while i_q < Q:
        b_g = tl.load(p_grad + i_b * s_grad[0] + i_q * s_grad[1] + o_l * s_grad[2] + o_c, mask=m_v, other=0.0)
        b_y = tl.load(p_ungated + ((i_b * Q + i_q) * L + o_l) * D + o_c, mask=m_v, other=0.0)
        b_v += b_g.to(tl.float32) * b_y
        i_q += 1
    b_z = tl.load(p_z + i_b * s_z[0] + o_l * s_z[1] + o_c, mask=m_v, other=0.0).to(tl.float32)
    b_s = sigmoid(b_z)
    tl.store(p_dz + o_row * D + o_c, b_v * b_s * (1.0 + b_z * (1.0 - b_s)), mask=m_v)
