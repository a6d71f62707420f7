"""Numba kernel of a few rows times a matrix: the matrix streams through once, row after row, as it lies in memory.

A work item is a share of the matrix's rows. Addresses are in bytes; matrix and bias are bfloat16 where p.half is not 0.
"""

from __future__ import annotations

import numpy as np

from ..cpu.dots import multiply_rows, share
from ..cpu.lanes import take_ticket
from ..cpu.team import Kernel, record_at

FIELDS = "x weight bias out rows inputs outputs half team tiers tickets"
RECORD = np.dtype([(name, np.int64) for name in FIELDS.split()])
TICKETS = RECORD.fields["tickets"][1]


def kernel(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.team * p.tiers:
            break
        first, last = share(item, p.outputs, p.team, p.tiers)
        multiply_rows(p.x, p.weight, p.bias, p.out, first, last, p.rows, p.inputs, p.outputs, p.half)


multiply = Kernel(kernel, RECORD)
