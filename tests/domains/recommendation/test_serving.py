import importlib

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.serving import Server

DESCRIBE = {"items": 30, "length": 50, "behaviours": 2}
MODELS = {
    "mamba4rec": {"d_state": 4, "channels": 32},
    "sasrec": {"channels": 32},
    "gru4rec": {},
    "ssd4rec": {"channels": 32},
}


def model_of(name):
    torch.manual_seed(0)
    build = importlib.import_module(f"polymamba.domains.recommendation.models.{name}").build
    return build(DESCRIBE, **MODELS.get(name, {})).double().eval()


def events(count, seed=0):
    """Users, items, behaviours of events in order; (count,) each."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(low, high, (count,), generator=generator) for low, high in ((0, 7), (1, 31), (1, 3))]


def feed(server, users, items, kinds):
    """All events, several users at a time where they are different."""
    begin = 0
    while begin < len(users):
        end = begin
        while end < len(users) and users[end] not in users[begin:end]:
            end += 1
        server.update(
            [f"user {each}" for each in users[begin:end]], items[begin:end], None, {"behaviour": kinds[begin:end]}
        )
        begin = end


def whole(model, users, items, kinds, user):
    own = users == user
    return model.encode(items[own][None], features={"behaviour": kinds[own][None]})[0]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_one_event_at_a_time_is_the_whole_history(name, tmp_path):
    model = model_of(name)
    users, items, kinds = events(120)
    server = Server(model)
    feed(server, users[:70], items[:70], kinds[:70])
    server.save(tmp_path / "states")
    server = Server(model)
    server.load(tmp_path / "states")
    feed(server, users[70:], items[70:], kinds[70:])
    assert len(server) == 7
    for user in range(7):
        expected = whole(model, users, items, kinds, user)
        torch.testing.assert_close(server.hidden([f"user {user}"])[0], expected, rtol=1e-7, atol=1e-8)
    offers = server.offers(["user 3", "user 0"], 5)
    for row, user in enumerate((3, 0)):
        had = set(items[users == user].tolist())
        assert not had & set(offers.items[row].tolist())
        scores = model.scores(whole(model, users, items, kinds, user))
        scores[[0, *had]] = -torch.inf
        assert offers.items[row].tolist() == scores.topk(5).indices.tolist()


@pytest.mark.slow
@torch.no_grad()
def test_ten_thousand_events(tmp_path):
    model = model_of("mamba4rec").float()
    items, kinds = (each.float().long() for each in events(10_000)[1:])
    server = Server(model)
    for item, kind in zip(items.split(1), kinds.split(1), strict=True):
        server.update(["one"], item, None, {"behaviour": kind})
    expected = model.encode(items[None], features={"behaviour": kinds[None]})[0]
    torch.testing.assert_close(server.hidden(["one"])[0], expected, rtol=1e-4, atol=1e-4)


def test_what_is_refused(tmp_path):
    with pytest.raises(UserError, match="no state to serve from"):
        Server(model_of("bert4rec"))
    model = model_of("gru4rec")
    server = Server(model)
    with pytest.raises(UserError, match="one event of a user at a time"):
        server.update(["a", "a"], torch.tensor([1, 2]), None, {"behaviour": torch.tensor([1, 1])})
    with pytest.raises(UserError, match="users without events"):
        server.offers(["nobody"])
    with pytest.raises(UserError, match="holds no states"):
        server.load(tmp_path)
    server.update(["a"], torch.tensor([1]), None, {"behaviour": torch.tensor([1])})
    server.save(tmp_path)
    with pytest.raises(UserError, match="another model's"):
        Server(model_of("mamba4rec")).load(tmp_path)
