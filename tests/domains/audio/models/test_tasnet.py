import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.tasnet import MambaTasNet, build


def tasnet(**options):
    torch.manual_seed(0)
    return MambaTasNet(**{"channels": 8, "depth": 2, "kernel": 6, "d_state": 4, **options}).double().eval()


def test_meets_the_record(meets_the_record, golden):
    mixture = golden.seeded(1, 2000)
    model = MambaTasNet(2, 32, 3, 16)
    meets_the_record(
        "audio_mamba_tasnet", model, lambda m: [m(mixture).transpose(1, 2), m.masks(mixture).transpose(0, 1)]
    )


@pytest.mark.parametrize("samples", [0, 1, 5, 6, 7, 50])
@pytest.mark.parametrize("sources", [1, 3])
def test_any_length_and_number_of_speakers(samples, sources):
    mixture = torch.randn(2, samples, dtype=torch.float64)
    assert tasnet(sources=sources)(mixture).shape == (2, sources, samples)


def cut(recording, sizes):
    """Pieces (batch, time') of those sizes, and the rest."""
    start = 0
    for size in sizes:
        yield recording[:, start : start + size]
        start += size
    yield recording[:, start:]


@pytest.mark.parametrize("mixer", ["mamba", "mamba2"])
@pytest.mark.parametrize("samples", [0, 1, 4, 6, 9, 60, 61, 62, 63])
@pytest.mark.parametrize("sizes", [[], [1] * 20, [3, 0, 17, 2], [6, 3, 3, 3], [25]])
@torch.no_grad()
def test_a_stream_in_pieces_is_the_whole(mixer, samples, sizes):
    channels = 32 if mixer == "mamba2" else 8
    model, recording = (
        tasnet(scan="raster", mixer=mixer, channels=channels),
        torch.randn(2, samples, dtype=torch.float64),
    )
    said, state, heard = [], None, 0
    for piece in cut(recording, sizes):
        found, state = model.stream(piece, state)
        said.append(found)
        heard += piece.shape[1]
        assert heard - sum(each.shape[-1] for each in said) < model.latency
    said.append(model.stream(recording[:, :0], state, last=True)[0])
    torch.testing.assert_close(torch.cat(said, -1), model(recording))


@torch.no_grad()
def test_the_state_does_not_grow():
    model, state, sizes = tasnet(scan="raster"), None, set()
    for _ in range(30):
        _, state = model.stream(torch.randn(1, 12, dtype=torch.float64), state)
        sizes.add(state.left.numel() + state.tail.numel() + sum(part.numel() for each in state.states for part in each))
    assert len(sizes) == 1


@torch.no_grad()
def test_a_causal_model_does_not_hear_the_future():
    model, recording = tasnet(scan="raster"), torch.randn(1, 60, dtype=torch.float64)
    other = recording.clone()
    other[:, 40:] += 1
    before = 40 - model.kernel
    torch.testing.assert_close(model(other)[..., :before], model(recording)[..., :before])
    both = tasnet()
    assert not torch.allclose(both(other)[..., :before], both(recording)[..., :before])


def test_what_reads_from_both_ends_has_no_stream():
    with pytest.raises(UserError, match="causal"):
        tasnet().stream(torch.randn(1, 10))


def test_louder_in_louder_out():
    model, mixture = tasnet(), torch.randn(1, 60, dtype=torch.float64)
    torch.testing.assert_close(model(7 * mixture), 7 * model(mixture), rtol=1e-4, atol=1e-6)


def test_wrong_sizes():
    with pytest.raises(UserError, match="even"):
        tasnet(kernel=5)
    with pytest.raises(UserError, match="unknown model size"):
        build({"sources": 2}, size="huge")
