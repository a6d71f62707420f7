"""Runs on clouds: what they leave, what predict.py answers."""

import numpy as np

GRAPHS = ("data=graph_motifs", "data.train=10", "data.val=5", "data.test=5", "model.dim_h=8", "model.depth=1")
QUICK = ("data=solids", "data.train=20", "data.val=10", "data.test=10", "data.batch_size=5", "data.points=40",
         "model.trans_dim=16", "model.depth=1", "model.num_group=8", "model.group_size=4")  # fmt: skip
HERE = ("trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.accelerator=cpu", "run_dir=run")


def test_a_run_draws_clouds_and_orders_and_answers(command, tmp_path):
    code, said, problems = command(*QUICK, *HERE, "model.orders=[z,hilbert]", job="train")
    assert code == 0, problems
    assert "class_accuracy" in said
    for name in ("first_batch.png", "orders.png", "worst_predictions.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(30, 3)))
    (tmp_path / "bad.xyz").write_text("1 2\n")
    code, said, problems = command("ckpt=run", "input=*.*")
    assert code == 1
    assert "cloud.npy" in said
    assert (tmp_path / "run" / "predictions" / "0000_cloud.png").stat().st_size > 0
    assert "bad.xyz" in said + problems
    code, _, problems = command("ckpt=run", "explain=attribution")
    assert code == 2
    assert "no hidden attention" in problems


def test_a_model_of_images_refuses_clouds(command):
    code, _, problems = command(*QUICK[:6], *HERE, "model=vim", job="train")
    assert code == 2
    assert "Traceback" not in problems


def test_a_run_draws_graphs(command, tmp_path):
    code, said, problems = command(*GRAPHS, *HERE, job="train")
    assert code == 0, problems
    assert "class_accuracy" in said
    for name in ("first_batch.png", "worst_predictions.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    code, _, problems = command("ckpt=run", "input=a.txt")
    assert code == 2
    assert "eval.py" in problems
