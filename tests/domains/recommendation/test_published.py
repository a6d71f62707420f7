"""Weights in RecBole's layout: read without running anything, into the same answers, for init= and ckpt=."""

import csv
import sys
import types
from collections import OrderedDict

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation import published
from polymamba.domains.recommendation.models.gru4rec import GRU4Rec
from polymamba.domains.recommendation.models.mamba4rec import Mamba4Rec
from polymamba.domains.recommendation.models.matrrec import MaTrRec
from polymamba.domains.recommendation.models.sasrec import SASRec
from polymamba.domains.recommendation.models.sigma import SIGMA
from polymamba.engine.command_line.main import main

SMALL = {"channels": 16, "d_state": 4, "d_conv": 3, "compat": "published"}
MODELS = {
    "Mamba4Rec": lambda: Mamba4Rec(20, 9, **SMALL),
    "Mamba4Rec two layers": lambda: Mamba4Rec(20, 9, layers=2, expand=1, **SMALL),
    "SIGMA": lambda: SIGMA(20, 9, **SMALL),
    "SASRec": lambda: SASRec(20, 9, 16, 2, 4, 24),
    "GRU4Rec": lambda: GRU4Rec(20, 9, 16, 12),
}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A file as RecBole's trainer writes it: settings as an object of its own class, epoch, weights."""
    module = types.ModuleType("recbole.config.configurator")

    class Config:
        def __init__(self, values):
            self.final_config_dict = values

    Config.__module__, Config.__qualname__ = module.__name__, "Config"
    module.Config = Config
    for name in ("recbole", "recbole.config"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(model, **settings):
        values = {"MAX_ITEM_LIST_LENGTH": 9, "n_heads": 4, **settings}
        content = {
            "config": Config(values), "epoch": 3, "state_dict": OrderedDict(model.state_dict()), "other_parameter": None
        }  # fmt: skip
        torch.save(content, tmp_path / "model.pth")
        for name in ("recbole.config.configurator", "recbole.config", "recbole"):
            monkeypatch.delitem(sys.modules, name)
        return tmp_path / "model.pth"

    return write


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_model_answers_as_it_did(saved, name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    path = saved(model)
    assert published.is_published(str(path))
    run = published.load(path)
    items = torch.tensor([[3, 9, 2, 17], [5, 1, 0, 0]])
    torch.testing.assert_close(run.model.scores(run.model.encode(items)), model.scores(model.encode(items)))
    assert run.model.length == 9
    fresh = MODELS[name]()
    fresh.load_state_dict(published.read_weights(path, fresh))
    assert torch.equal(fresh.item_embedding.weight, model.item_embedding.weight)


def test_predict_with_published_weights(saved, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    model = MODELS["SASRec"]().eval()
    path = saved(model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.txt").write_text("\n".join(["[PAD]", *(f"book {number}" for number in range(1, 21))]))
    (tmp_path / "events.csv").write_text("user,item,time\nann,book 3,1\nann,book 9,2\nbob,book 20,5\n")
    assert (
        main([f"ckpt={path}", "input=events.csv", "items=items.txt", "k=3", "domain=recommendation"], job="predict")
        == 0
    )
    with open("recommendations.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["user"] == "ann"]
    with torch.no_grad():
        scores = model.scores(model.encode(torch.tensor([[3, 9]])))[0]
    scores[[0, 3, 9]] = -torch.inf
    assert [row["item"] for row in rows] == [f"book {number}" for number in scores.topk(3).indices.tolist()]
    capsys.readouterr()
    assert main([f"ckpt={path}", "domain=recommendation"], job="predict") == 2
    assert "no users of its own" in capsys.readouterr().err
    assert main([f"ckpt={path}", "data=interactions"], job="evaluate") == 2
    assert "are not tested" in capsys.readouterr().err


def test_what_is_something_else_is_named(saved, tmp_path):
    path = saved(MODELS["GRU4Rec"]())
    (tmp_path / "items.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="does not name the model's items"):
        published.load(path, items=str(tmp_path / "items.txt"))
    with pytest.raises(UserError, match="Cannot read"):
        published.load(path, items=str(tmp_path / "none.txt"))
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no recommender's weights"):
        published.load(path)
    torch.save(MaTrRec(20, 9, 16, d_state=4).state_dict(), path)
    with pytest.raises(UserError, match="none of the models"):
        published.load(path)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot read the weights"):
        published.load(path)


class Trap:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    torch.save({"config": Trap(), "state_dict": {}}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="none of it was run"):
        published.load(tmp_path / "model.pth")
    assert "run" not in capsys.readouterr().out
