from types import SimpleNamespace

import pytest

from polymamba.core.errors import UserError
from polymamba.engine.command_line.options import Options
from polymamba.engine.training.run import Result
from polymamba.engine.training.summary import after_training, predict_example


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("card: {example: 'say=\"The \"'}\nsay: ''\n", ["say=The "]),
        ("card: {example: input=a.png explain=raw}\n", ["input=a.png", "explain=raw"]),
        ("card: {rest: say}\n", []),
        ("card:\nsay: ''\n", []),
        ("say: ''\n", []),
    ],
)
def test_what_a_domain_suggests_to_predict(tmp_path, text, words):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "predict.yaml").write_text(text)
    assert predict_example("elsewhere", Options((), config_dirs=(tmp_path,))) == words


def test_a_task_has_an_example_of_its_own(tmp_path):
    (tmp_path / "elsewhere" / "task").mkdir(parents=True)
    (tmp_path / "elsewhere" / "domain.yaml").write_text("card: {title: elsewhere}")
    (tmp_path / "elsewhere" / "predict.yaml").write_text("card: {example: input=a.png}")
    for name, card in (
        ("silent", "card: {example: null}"),
        ("usual", "card: {title: usual}"),
        ("own", "card: {example: k=3}"),
    ):
        (tmp_path / "elsewhere" / "task" / f"{name}.yaml").write_text(card)
    options = Options((), config_dirs=(tmp_path,))
    examples = {name: predict_example("elsewhere", options, name) for name in ("silent", "usual", "own", "unknown")}
    assert examples == {"silent": [], "usual": ["input=a.png"], "own": ["k=3"], "unknown": ["input=a.png"]}


def test_a_domain_without_predict_yaml_suggests_nothing(tmp_path):
    assert predict_example("elsewhere", Options((), config_dirs=(tmp_path,))) == []


def test_a_broken_predict_yaml_is_named(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "predict.yaml").write_text("card: [")
    with pytest.raises(UserError, match=r"predict\.yaml cannot be read"):
        predict_example("elsewhere", Options((), config_dirs=(tmp_path,)))


@pytest.mark.parametrize(("links", "weights"), [(("best", "last"), "best"), (("last",), "last")])
def test_the_commands_name_what_is_there(tmp_path, links, weights):
    config_dir, run = tmp_path / "configs", tmp_path / "run"
    for folder in (config_dir / "elsewhere", *(run / "checkpoints" / link for link in links)):
        folder.mkdir(parents=True)
    (config_dir / "elsewhere" / "predict.yaml").write_text("card: {example: 'text=\"a b\"'}")
    (run / "first_batch.png").touch()
    trainer = SimpleNamespace(epochs=3, steps=7)
    config = SimpleNamespace(domain="elsewhere", scan=None, trainer=trainer, task={"name": "usual"})
    result = Result(run, {"test/loss": 0.5}, SimpleNamespace(model=SimpleNamespace(modules=list)), "time is over")
    said = after_training(result, config, Options((), config_dirs=(config_dir,)))
    assert f"weights    {run}/checkpoints/{weights}/weights.safetensors" in said
    assert f"pictures   {run}/ (first batch)" in said
    commands = [line.split("   ")[0].strip() for line in said.splitlines() if ".py" in line]
    assert commands == ["go on with it", "test again", "predict", "train longer"]
    [line] = [line for line in said.splitlines() if line.startswith("  predict ")]
    assert line.endswith(f"ckpt={run} 'text=a b'")
    assert f"resume={run} trainer.epochs=6 trainer.steps=14" in said
