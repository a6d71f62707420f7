"""VMRNN: its cell against the equations, frames in pieces, sizes that do not fit, names and parameters of the published code."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.scans import get
from polymamba.domains.vision.models.vmrnn import (
    SIZES,
    VMRNN,
    ConvLSTMCell,
    State,
    VMRNNCell,
    VMRNNClassifier,
    build,
    checkpoint_filter_fn,
)
from polymamba.domains.vision.published import read_weights

FORMS = {
    "B": {"depths": (2, 1), "patch_size": 4},
    "D": {"depths": (1, 2), "depths_up": (1, 1), "patch_size": 2},
    "convlstm": {"depths": (1, 1), "patch_size": 2, "cell": "convlstm"},
}
VIDEO = {"image_size": [16, 16], "channels": 3, "num_classes": 5, "model_size": "micro", "frames": 4}


def small(form, kind=VMRNN, **options):
    torch.manual_seed(0)
    return kind((13, 22), 2, embed_dim=8, d_state=3, **FORMS[form], **options).double().eval()


def plain_ss2d(x, w, name):
    """SS2D of tokens (batch, rows, columns, channels) from its parameters alone: token after token along four paths."""
    batch, rows, columns, _ = x.shape
    tokens, (_, inner, rank) = rows * columns, w[f"{name}.dt_projs_weight"].shape
    y, z = F.linear(x, w[f"{name}.in_proj.weight"]).chunk(2, -1)
    y = F.conv2d(y.movedim(-1, 1), w[f"{name}.conv2d.weight"], w[f"{name}.conv2d.bias"], padding=1, groups=inner)
    y = F.silu(y).movedim(1, -1).flatten(1, 2)
    raster = torch.arange(tokens)
    column = raster.view(rows, columns).T.flatten()
    total = torch.zeros_like(y)
    decay = -w[f"{name}.A_logs"].exp().unflatten(0, (4, inner))
    skip = w[f"{name}.Ds"].unflatten(0, (4, inner))
    for path, order in enumerate((raster, column, raster.flip(0), column.flip(0))):
        seen = y[:, order]
        widths = (rank, decay.shape[-1], decay.shape[-1])
        step, write, read = F.linear(seen, w[f"{name}.x_proj_weight"][path]).split(widths, -1)
        step = F.softplus(F.linear(step, w[f"{name}.dt_projs_weight"][path]) + w[f"{name}.dt_projs_bias"][path])
        state, said = torch.zeros(batch, inner, decay.shape[-1], dtype=x.dtype), []
        for time in range(tokens):
            kept = (step[:, time, :, None] * decay[path]).exp()
            state = kept * state + (step * seen)[:, time, :, None] * write[:, time, None]
            said.append((state * read[:, time, None]).sum(-1) + skip[path] * seen[:, time])
        total = total.index_add(1, order, torch.stack(said, 1))
    y = F.layer_norm(total, (inner,), w[f"{name}.out_norm.weight"], w[f"{name}.out_norm.bias"]).view(
        batch, rows, columns, inner
    )
    return F.linear(y * F.silu(z), w[f"{name}.out_proj.weight"])


def plain_cell(x, hidden, memory, w, depth):
    """Equations 3 to 6 of the paper."""
    for number in range(depth):
        name = f"VSBs.{number}"
        norm = (w[f"{name}.ln_1.weight"].shape, w[f"{name}.ln_1.weight"], w[f"{name}.ln_1.bias"])
        y = F.layer_norm(x, *norm)
        if number == 0:
            joined = torch.cat([y, F.layer_norm(hidden, *norm)], -1)
            y = F.linear(joined, w[f"{name}.linear.weight"], w[f"{name}.linear.bias"])
        x = x + plain_ss2d(y, w, f"{name}.self_attention")
    gate = 1 / (1 + (-x).exp())
    memory = gate * (memory + x.tanh())
    return gate * memory.tanh(), memory


def test_the_cell_is_the_equations_with_all_gradients():
    torch.manual_seed(0)
    cell = VMRNNCell(4, [get("cross")] * 2, [0.0, 0.0], d_state=3).double()
    for each in cell.parameters():
        each.data += 0.1 * torch.randn_like(each)
    given = [torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weights = dict(cell.named_parameters())
    found, expected = cell(given[0], State(*given[1:])), plain_cell(*given, weights, 2)
    wanted, along = [*given, *weights.values()], [torch.randn_like(each) for each in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    mine, theirs = (torch.autograd.grad(each, wanted, along) for each in (found, expected))
    for one, other in zip(mine, theirs, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_cell_of_convolutions_is_convlstms():
    torch.manual_seed(0)
    cell = ConvLSTMCell(3).double()
    x, hidden, memory = (torch.randn(2, 4, 5, 3, dtype=torch.float64) for _ in range(3))
    found = cell(x, State(hidden, memory))
    padded = F.pad(torch.cat([x, hidden], -1), (0, 0, 1, 1, 1, 1))
    said = cell.gates.bias + torch.einsum("bijc,ocij->bo", padded[:, 1:4, 2:5], cell.gates.weight)  # at row 1, column 2
    written, kept, candidate, shown = said.split(3, -1)
    expected = kept.sigmoid() * memory[:, 1, 2] + written.sigmoid() * candidate.tanh()
    torch.testing.assert_close(found.memory[:, 1, 2], expected)
    torch.testing.assert_close(found.hidden[:, 1, 2], shown.sigmoid() * expected.tanh())


@pytest.mark.parametrize("form", FORMS)
def test_a_video_in_pieces_is_the_whole_video(form):
    model, video = small(form), torch.rand(2, 2, 3, 13, 22, dtype=torch.float64)
    whole, after = model(video, 2)
    assert whole.shape == (2, 2, 5, 13, 22)
    assert ((whole > 0) & (whole < 1)).all()
    first, states = model(video[:, :, :1])
    second, states = model(video[:, :, 1:], 2, states)
    torch.testing.assert_close(torch.cat([first, second], 2), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states, after, rtol=1e-5, atol=1e-5)
    # what is fed back is what was said
    fed = torch.cat([video, whole[:, :, 2:4]], 2)
    torch.testing.assert_close(model(fed)[0], whole)
    assert not torch.allclose(model(video[:, :, 1:])[0], whole[:, :, 1:3])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (7, 30), (16, 16)])
def test_frames_of_any_size(form, size):
    model, video = small(form), torch.rand(1, 2, 1, *size, dtype=torch.float64)
    assert model(video)[0].shape == (1, 2, 1, *size)
    named = small(form, VMRNNClassifier, num_classes=4)
    assert named(video).shape == (1, 4)
    torch.testing.assert_close(named(video[:, :, 0]), named(video))


def test_the_class_is_read_from_the_mean_of_the_last_hidden_state():
    model, video = small("B", VMRNNClassifier, num_classes=4), torch.rand(2, 2, 3, 13, 22, dtype=torch.float64)
    states = None
    for frame in video.unbind(2):
        _, states = model.step(frame, states)
    expected = model.head(model.norm(states[-1].hidden.mean((1, 2))))
    torch.testing.assert_close(model(video), expected)


def published(form):
    """Names of the published code's parameters, with those that it never uses; VMRNN-B's cell is `layer` in its later version."""
    ss2d = ["A_logs", "Ds", "conv2d.bias", "conv2d.weight", "dt_projs_bias", "dt_projs_weight", "in_proj.weight",
            "out_norm.bias", "out_norm.weight", "out_proj.weight", "x_proj_weight"]  # fmt: skip
    both = ("weight", "bias")
    vsb = [f"self_attention.{name}" for name in ss2d] + [
        f"{part}.{each}" for part in ("ln_1", "linear") for each in both
    ]

    def cell(prefix, depth):
        return [f"{prefix}.VSBs.{number}.{name}" for number in range(depth) for name in vsb]

    def embed(prefix):
        return [f"{prefix}.patch_embed.{part}.{each}" for part in ("proj", "norm") for each in both]

    if form == "B":
        inflated = [f"ST.patch_inflated.{part}.{each}" for part in ("Conv", "Conv_.0", "Conv_.1") for each in both]
        return [*embed("ST"), *inflated, *cell("ST.layer", 3)]
    merged = [
        f"Downsample.downsample.{number}.{name}"
        for number in range(2)
        for name in ("norm.weight", "norm.bias", "reduction.weight")
    ]
    grown = [
        f"Upsample.upsample.{number}.{name}"
        for number in range(2)
        for name in ("norm.weight", "norm.bias", "expand.weight")
    ]
    down = [*cell("Downsample.layers.0", 1), *cell("Downsample.layers.1", 2)]
    up = [*cell("Upsample.layers.0", 1), *cell("Upsample.layers.1", 2)]
    return [
        *embed("Downsample"),
        *embed("Upsample"),
        *merged,
        *grown,
        *down,
        *up,
        "Upsample.Unembed.Conv.weight",
        "Upsample.Unembed.Conv.bias",
    ]


@pytest.mark.parametrize(
    ("form", "options"),
    [("B", {"depths": (3,), "patch_size": 4}), ("D", {"depths": (1, 2), "depths_up": (1, 2), "patch_size": 2})],
)
def test_published_names(form, options, tmp_path):
    torch.manual_seed(0)
    model = VMRNN(16, 1, embed_dim=8, **options)
    own = {name.replace("ST.layers.0.", "ST.layer."): value for name, value in model.state_dict().items()}
    given = {name: torch.randn_like(own[name]) if name in own else torch.zeros(1) for name in published(form)}
    assert own.keys() <= given.keys()
    unused = {name for name in given if name not in own}
    assert all(".linear." in name or name.startswith("Upsample.patch_embed.") for name in unused)
    assert len(unused) == (4 if form == "B" else 2 * 2 + 4)
    torch.save(given, tmp_path / "vmrnn.pth")
    model.load_state_dict(read_weights(tmp_path / "vmrnn.pth", model))
    name = "ST.layers.0.VSBs.2.ln_1.weight" if form == "B" else "Upsample.layers.1.VSBs.1.ln_1.weight"
    assert torch.equal(model.state_dict()[name], given[name.replace("ST.layers.0.", "ST.layer.")])
    named = VMRNNClassifier(16, 1, 3, embed_dim=8, **options)
    head = named.head.weight.clone()
    named.load_state_dict(checkpoint_filter_fn({"model": given}, named))
    assert torch.equal(named.head.weight, head)
    assert torch.equal(named.state_dict()[name], model.state_dict()[name])


def test_parameters_are_the_papers_less_what_is_never_used():
    with torch.device("meta"):
        model = VMRNN(32, 2, **SIZES["taxibj"])
    unused = 11 * (2 * 128 * 128 + 128)
    assert sum(each.numel() for each in model.parameters()) + unused == 2_579_970  # the paper: 2.6 M


def test_the_task_says_which_head_is_built():
    assert isinstance(build(VIDEO), VMRNNClassifier)
    model = build({**VIDEO, "predicts_frames": True}, scan="hilbert")
    assert isinstance(model, VMRNN)
    assert (model.patch_size, model.tokens, [grid.sizes for grid in model.grids]) == (2, 4 * 64, [(8, 8)])
    assert build({**VIDEO, "frames": None}).tokens == 64
    assert {
        "ST.layers.0.VSBs.1.self_attention.A_logs",
        "ST.layers.0.VSBs.1.self_attention.Ds",
    } <= model.no_weight_decay()
    assert [grid.sizes for grid in small("D").grids] == [(7, 11), (4, 6), (2, 3)]


@pytest.mark.parametrize(
    ("shape", "words"), [((1, 3, 2, 8, 8), "1x3x2x8x8"), ((1, 2, 0, 8, 8), "at least one frame"), ((2, 8, 8), "2x8x8")]
)
def test_what_is_no_video_is_refused(shape, words):
    with pytest.raises(UserError, match=words):
        small("B")(torch.zeros(shape, dtype=torch.float64))


def test_wrong_states_and_depths_are_refused():
    model, video = small("B"), torch.rand(1, 2, 1, 8, 8, dtype=torch.float64)
    with pytest.raises(UserError, match="each cell has a state"):
        model(video, 0, model(video)[1][:1])
    with pytest.raises(UserError, match="as many cells up as down"):
        VMRNN(16, 1, embed_dim=8, depths=(1, 1), depths_up=(1,))
    with pytest.raises(UserError, match="unknown patch size"):
        VMRNN(16, 1, embed_dim=8, patch_size=3)
    with pytest.raises(UserError, match="cell"):
        VMRNN(16, 1, embed_dim=8, cell="lstm")


@pytest.mark.slow
def test_the_classifier_learns_what_no_single_frame_says():
    """A dot that goes left or right, from anywhere, around the edges: frames of both classes are the same."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)

    def clips(count):
        row, start = torch.randint(0, 8, (2, count), generator=random)
        right, video = torch.arange(count) % 2, torch.zeros(count, 1, 4, 8, 8)
        for frame in range(4):
            video[torch.arange(count), 0, frame, row, (start + frame * (2 * right - 1)) % 8] = 1
        return video, right

    model = VMRNNClassifier(8, 1, 2, embed_dim=16, depths=(1,), patch_size=2, d_state=2)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(90):
        video, right = clips(32)
        optimizer.zero_grad()
        F.cross_entropy(model(video), right).backward()
        optimizer.step()
    video, right = clips(256)
    assert float((model(video).argmax(1) == right).float().mean()) > 0.9
