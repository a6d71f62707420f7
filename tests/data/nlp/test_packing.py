"""Packed rows against pairs written down one document at a time."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from polymamba.data.nlp.documents import Documents, from_texts
from polymamba.data.nlp.packing import PackedRows

END = 256


def pairs(texts):
    """(input, label, document) of every token, by the rule alone."""
    found = []
    for number, text in enumerate(texts):
        marked = [END, *text.encode(), END]
        found += [(a, b, number) for a, b in pairwise(marked)]
    return found


def flat(batch):
    real = batch["seq_idx"].flatten() >= 0
    return list(zip(*(batch[name].flatten()[real].tolist() for name in ("input_ids", "labels")), strict=True))


TEXTS = ["hello", "a", "the longest document of them all", "xy", "tail"]


@pytest.mark.parametrize("length", [2, 7, 16, 64])
def test_every_pair_stands_once_and_in_order(length):
    rows = PackedRows(from_texts(TEXTS), length, END)
    expected = pairs(TEXTS)
    assert len(rows) == -(-len(expected) // length)
    batch = rows.take(np.arange(len(rows)))
    assert flat(batch) == [pair[:2] for pair in expected]
    padding = batch["seq_idx"] < 0
    assert (batch["labels"][padding] == -100).all()
    assert int(padding.sum()) == len(rows) * length - len(expected)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["seq_idx"].dtype == torch.int32


def test_documents_within_a_row_have_numbers_of_their_own():
    batch = PackedRows(from_texts(TEXTS), 16, END).take(np.arange(3))
    documents = [number for _, _, number in pairs(TEXTS)]
    for row in range(3):
        expected = documents[16 * row : 16 * row + 16]
        assert batch["seq_idx"][row].tolist() == [number - expected[0] for number in expected]


def test_no_label_comes_from_another_document():
    batch = PackedRows(from_texts(TEXTS), 16, END).take(np.arange(3))
    inputs, labels, seq_idx = (batch[name].flatten() for name in ("input_ids", "labels", "seq_idx"))
    ends = (seq_idx[:-1] != seq_idx[1:]) & (inputs[1:] == END)
    assert (labels[:-1][ends] == END).all()
    follows = (seq_idx[:-1] == seq_idx[1:]) & (seq_idx[:-1] >= 0)
    follows[15::16] = False
    assert torch.equal(labels[:-1][follows], inputs[1:][follows])


@pytest.mark.parametrize("phase", [1, 9, 30, 48])
def test_a_phase_cuts_elsewhere_and_loses_nothing(phase):
    rows = PackedRows(from_texts(TEXTS), 16, END)
    expected = [pair[:2] for pair in pairs(TEXTS)]
    shift = phase % len(expected)
    assert flat(rows.take(np.arange(len(rows)), phase)) == expected[shift:] + expected[:shift]


def test_rows_can_be_limited():
    rows = PackedRows(from_texts(TEXTS), 16, END, limit=2)
    expected = [pair[:2] for pair in pairs(TEXTS)][:32]
    assert len(rows) == 2
    assert flat(rows.take(np.arange(2))) == expected
    assert flat(rows.take(np.arange(2), 5)) == expected[5:] + expected[:5]


def test_shards_of_any_kind():
    shards = [np.array([5, 6, 7], np.uint16), np.array([8, 9], np.uint32)]
    rows = PackedRows(Documents(shards, np.array([[0, 0, 3], [1, 0, 2]])), 7, 0)
    assert rows.take(np.arange(1))["input_ids"].tolist() == [[0, 5, 6, 7, 0, 8, 9]]
    assert rows.take(np.arange(1))["labels"].tolist() == [[5, 6, 7, 0, 8, 9, 0]]
