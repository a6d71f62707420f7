import pytest
import torch

from polymamba.domains.recommendation.packed import Packed


@pytest.mark.parametrize("lengths", [[3], [1, 5, 2, 2, 4, 1], [0, 2, 0], [], [0], [4, 4, 4]])
def test_every_event_is_in_one_place_beside_its_own(lengths):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    items = torch.randint(1, 99, (len(lengths), 7, 2))
    packed = Packed(lengths)
    rows = packed.together(items)
    assert rows.shape == (packed.rows, packed.width, 2)
    assert packed.seq_idx.shape == rows.shape[:2]
    assert packed.width == (max(lengths) if len(lengths) else 0)
    for history, length in enumerate(lengths.tolist()):
        own = packed.seq_idx == history
        assert own.sum() == length
        assert len(own.nonzero()[:, 0].unique()) <= 1
        assert torch.equal(rows[own], items[history, :length])
    assert not rows[packed.seq_idx < 0].any()
    assert packed.apart(rows).equal(items[torch.arange(7) < lengths[:, None]])
    assert packed.together({"a": items, "b": None})["a"].equal(rows)


def test_short_histories_share_rows():
    lengths = torch.randint(1, 12, (200,))
    packed = Packed(torch.cat([lengths, torch.tensor([50])]))
    assert packed.rows <= 1.2 * (int(lengths.sum()) + 50) / 50 + 1
