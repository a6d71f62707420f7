import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.dpmamba import DPMamba, added, chunked


def test_meets_the_record(meets_the_record, golden):
    mixture = golden.seeded(1, 2000)
    model = DPMamba(2, 32, 2, 16, 50)
    meets_the_record("audio_dpmamba", model, lambda m: [m(mixture).transpose(1, 2), m.masks(mixture).transpose(0, 1)])


@pytest.mark.parametrize("frames", [1, 3, 7, 8, 9, 16, 50])
def test_chunks_laid_over_one_another_are_twice_what_they_were_cut_from(frames):
    x = torch.randn(2, 3, frames)
    torch.testing.assert_close(added(chunked(x, 8), frames), 2 * x)


def test_skips_add_what_comes_in():
    torch.manual_seed(0)
    plain, skips = (DPMamba(2, 8, 1, 16, 10, skip=skip).double() for skip in (False, True))
    skips.load_state_dict(plain.state_dict())
    x = torch.randn(1, 8, 10, 4, dtype=torch.float64)
    block, other = plain.masknet.dual_mdl[0], skips.masknet.dual_mdl[0]
    with torch.no_grad():
        block.inter_mdl.norm_f.weight.zero_()  # so that nothing is said across
        other.inter_mdl.norm_f.weight.zero_()
        torch.testing.assert_close(other(x)[0], block(x)[0] + x)


def causal(**options):
    torch.manual_seed(0)
    sizes = {"sources": 2, "channels": 8, "depth": 2, "kernel": 6, "chunk": 8, "d_state": 4}
    return DPMamba(**{**sizes, "across": "raster", **options})


def pieces(recording, size):
    """A recording (batch, time) in pieces of a size; 0: of random sizes."""
    start, chance = 0, torch.Generator().manual_seed(0)
    while start < recording.shape[1]:
        step = size or int(torch.randint(0, 300, (), generator=chance))
        yield recording[:, start : start + step]
        start += step


@pytest.mark.parametrize("within", ["raster", "bidirectional"])
@pytest.mark.parametrize("samples", [0, 1, 6, 13, 24, 150])
@pytest.mark.parametrize("size", [1, 12, 13, 0])
@torch.no_grad()
def test_a_stream_in_pieces_is_the_whole(within, samples, size):
    model, recording = causal(within=within).double().eval(), torch.randn(2, samples, dtype=torch.float64)
    said, state, heard, kept = [], None, 0, set()
    for piece in pieces(recording, size):
        found, state = model.stream(piece, state)
        said.append(found)
        heard += piece.shape[1]
        assert heard - sum(each.shape[-1] for each in said) < model.latency
        if state.states is not None:
            kept.add(sum(part.numel() for block in state.states.states or [] for each in block or [] for part in each))
    assert len(kept - {0}) <= 1  # what the Mambas keep does not grow
    said.append(model.stream(recording[:, :0], state, last=True)[0])
    torch.testing.assert_close(torch.cat(said, -1), model(recording))


@torch.no_grad()
def test_a_causal_model_hears_no_more_than_a_chunk_of_the_future():
    model, recording = causal(within="bidirectional").double().eval(), torch.randn(1, 200, dtype=torch.float64)
    other = recording.clone()
    other[:, 150:] += 1
    before = 150 - model.latency
    torch.testing.assert_close(model(other)[..., :before], model(recording)[..., :before])
    assert model.causal
    assert not causal(norm="global").causal
    assert not causal(across="bidirectional").causal


def test_an_odd_chunk_is_refused():
    with pytest.raises(UserError, match="even"):
        DPMamba(2, 8, 1, 16, 9)
