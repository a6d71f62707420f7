"""Models whose authors scale what enters the residual stream by depth begin so: a stack that does not may never leave a plateau."""

import pytest

from polymamba.domains.audio.models.aum import AuM
from polymamba.domains.audio.models.tasnet import MambaTasNet
from polymamba.domains.vision.models.localvim import LocalVim
from polymamba.domains.vision.models.videomamba import VideoMamba
from polymamba.domains.vision.models.vim import Vim

DEPTH = 9
MODELS = {
    "mamba_tasnet": lambda: MambaTasNet(channels=16, depth=DEPTH),
    "aum": lambda: AuM(embed_dim=16, depth=DEPTH),
    "vim": lambda: Vim(embed_dim=16, depth=DEPTH),
    "videomamba": lambda: VideoMamba(embed_dim=16, depth=DEPTH),
    "localvim": lambda: LocalVim(embed_dim=16, depth=DEPTH),
}


@pytest.mark.parametrize("name", MODELS)
def test_projections_into_the_residual_stream_are_scaled_by_depth(name):
    weights = [p for key, p in MODELS[name]().named_parameters() if key.endswith("out_proj.weight")]
    assert len(weights) == DEPTH
    for weight in weights:
        bound = (weight.shape[1] * DEPTH) ** -0.5  # of a linear layer's uniform numbers, over sqrt(DEPTH)
        assert 0.9 * bound < weight.abs().max() <= bound
