"""What language models write and the classes of texts: one prompt, files of them, pictures, mistakes."""

import csv
import json

import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.nlp.tokenizer import ByteTokenizer
from polymamba.domains.nlp.explanation import explain_class, explain_next_token
from polymamba.domains.nlp.generation import generate
from polymamba.domains.nlp.models.build import build
from polymamba.domains.nlp.predict import classify, go_on, predict, read_texts, write
from polymamba.domains.trained import Trained
from polymamba.engine.checkpoints import folder as files

MODEL = {"d_model": 16, "n_layer": 1, "backend": "reference"}
TYPED = [f"model.{name}={value}" for name, value in MODEL.items()]
CLASSES = ["question", "answer", "silence"]


def about(**more):
    tokenizer = ByteTokenizer()
    return {"name": "texts", "tokenizer": tokenizer, "vocab_size": tokenizer.vocab_size, "model_size": "micro", **more}


@pytest.fixture
def language_model(make_run, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "sums.txt"
    if not path.exists():
        path.write_text("".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(60)))
    return make_run("domain=nlp", "data=text_file", f"data.files={path}", "data.length=32", *TYPED)


@pytest.fixture(scope="module")
def writer():
    """A language model that nobody trained."""
    torch.manual_seed(0)
    describe = about(task="language_modelling")
    return Trained(build(describe, **MODEL).eval(), None, None, describe, "cpu", None)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    describe = about(task="classification", classes=CLASSES, num_classes=3, length=12)
    model = build(describe, scan="bidirectional", **MODEL).eval()
    torch.nn.init.normal_(model.head.weight)
    return Trained(model, object(), None, describe, "cpu", None)


def model_of(run):
    model = build(about(task="language_modelling"), **MODEL).eval()
    model.load_state_dict(files.read_weights(files.find(run, ("best", "last"))[0]))
    return model


def test_the_prompt_and_the_models_text(language_model, command):
    expected = generate(
        model_of(language_model), "1 and", ByteTokenizer(), max_new_tokens=30, seed=4, temperature=0.8, top_p=0.95
    ).texts[0]  # fmt: skip
    for prompt in (["prompt=1 and"], ["1 and"], ["1", "and"]):
        code, printed, message = command(f"ckpt={language_model}", *prompt, "max_new_tokens=30", "seed=4")
        assert (code, message) == (0, "")
        assert printed == f"1 and{expected}\n"
    assert len(expected) > 5
    code, printed, _ = command(f"ckpt={language_model}", "max_new_tokens=5", "temperature=0")
    assert (code, printed[-1]) == (0, "\n")


def test_a_text_appears_piece_by_piece_and_ends_before_a_stop_string(writer):
    pieces = []
    said = go_on(writer, "a", pieces.append, max_new_tokens=20, seed=1)
    assert len(pieces) > 3
    assert "".join(pieces) == f"a{said}\n"
    stop = said[4:6]
    assert go_on(writer, "a", pieces.append, max_new_tokens=20, seed=1, stop=stop) == said[: said.index(stop)]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_file_of_prompts(language_model, command, tmp_path, suffix):
    prompts = ["1 and 2", "é", "3 and 4 make "]
    if suffix == ".txt":
        (tmp_path / "prompts.txt").write_text("\n".join(["1 and 2", "", "é", "3 and 4 make "]), encoding="utf-8")
        extra = [{}] * 3
    else:
        extra = [{"id": 7}, {}, {"text": "what it was"}]
        lines = [json.dumps({**more, "prompt": prompt}) for prompt, more in zip(prompts, extra, strict=True)]
        (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    options = {"max_new_tokens": 9, "seed": 5, "temperature": 0.8, "top_p": 0.95}
    made = generate(model_of(language_model), prompts, ByteTokenizer(), **options)
    for given, target in (([], "prompts_answers.jsonl"), (["output=deep/own.jsonl", "batch_size=2"], "deep/own.jsonl")):
        (tmp_path / "deep").mkdir(exist_ok=True)
        code, printed, message = command(
            f"ckpt={language_model}", f"input=prompts{suffix}", "max_new_tokens=9", "seed=5", *given
        )
        assert (code, message) == (0, "")
        assert f"written  {target}" in printed
        rows = [json.loads(line) for line in (tmp_path / target).read_text(encoding="utf-8").splitlines()]
        assert [row["prompt"] for row in rows] == prompts
        answers = [row["answer"] if "text" in more else row["text"] for row, more in zip(rows, extra, strict=True)]
        assert answers == made.texts, "whatever the number at a time"
        assert [row["reason"] for row in rows] == made.reasons
        assert all(row[name] == more[name] for row, more in zip(rows, extra, strict=True) for name in more)


def test_in_memory(writer):
    options = {"max_new_tokens": 6, "seed": 2}
    tokenizer = writer.describe["tokenizer"]
    assert write(writer, ["a", "b"], **options) == generate(writer.model, ["a", "b"], tokenizer, **options)


def alone(classifier, text):
    ids = torch.tensor([list(text.encode())[:12]])
    with torch.no_grad():
        return classifier.model(ids).softmax(1)[0]


def test_classes_of_texts(classifier, tmp_path):
    texts = ["why?", "because of all that was said before", "é", "...", "no"]
    found = classify(classifier, texts, top=2, batch_size=2)
    for text, each in zip(texts, found, strict=True):
        sure, labels = alone(classifier, text).topk(2)
        assert each.names == [CLASSES[label] for label in labels]
        assert each.confidences == pytest.approx(sure.tolist(), abs=1e-5)
    assert len(predict(classifier, "why?").lines) == 1
    assert found[0].names[0] in predict(classifier, "why?").lines[0]
    assert classify(classifier, []) == []
    [empty] = classify(classifier, [""])
    assert all(0 <= each <= 1 for each in empty.confidences)
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    answer = predict(classifier, input=str(tmp_path / "texts.txt"), top=2)
    assert answer.files == [tmp_path / "texts_answers.csv"]
    with open(answer.files[0], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert [row["class"] for row in rows] == [each.names[0] for each in found]
    assert [float(row["confidence_2"]) for row in rows] == pytest.approx(
        [each.confidences[1] for each in found], abs=1e-5
    )
    assert sum(int(line.split()[0].replace(",", "")) for line in answer.lines) == len(texts)


@pytest.mark.parametrize("method", ["raw", "rollout", "attribution"])
def test_what_an_answer_rests_on(language_model, classifier, command, tmp_path, method):
    code, printed, message = command(f"ckpt={language_model}", "prompt=1 and", f"explain={method}")
    assert (code, message) == (0, "")
    figure, said = explain_next_token(model_of(language_model), ByteTokenizer(), "1 and", method)
    assert f"answer   {said}\n" in printed
    figure.savefig(tmp_path / "expected.png")
    path = language_model / f"explained_{method}.png"
    with Image.open(path) as found, Image.open("expected.png") as expected:
        assert found.tobytes() == expected.tobytes()
    run = Trained(classifier.model, classifier.task, None, classifier.describe, "cpu", tmp_path)
    answer = predict(run, "why is that so?", explain=method)
    said = explain_class(run.model, run.describe["tokenizer"], "why is that so?", CLASSES, method, 12)[1]
    assert answer.lines == [f"  answer   {said}"]
    assert answer.files[0].stat().st_size > 2000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promt=x"], "prompt=x"),
        (["temperature=-1"], "temperature is out of range"),
        (["top_p=high"], "top_p has the wrong type"),
        (["top_k=1.5"], "top_k has the wrong type"),
        (["max_new_tokens=0"], "max_new_tokens"),
        (["data.length=3"], "given by the weights"),
        (["explain=atribution", "prompt=x"], "explain=attribution"),
        (["explain=", "prompt=x"], "explain is empty"),
        (["explain=raw"], 'prompt="..."'),
        (["explain=raw", "prompt=x", "temperature=0"], "no effect here"),
        (["explain=raw", "input=x.txt"], "without prompt= and explain="),
        (["prompt=x", "input=x.txt"], "without prompt= and explain="),
        (["prompt=x", "output=x.txt"], "input=<file>"),
        (["input=x.txt"], "cannot read the texts"),
        (["input=empty.txt"], "no text in this file"),
        (["input=bad.jsonl"], "bad.jsonl, line 2 is no JSON"),
        (["input=odd.jsonl"], 'line 1 holds no "prompt"'),
        (["input=good.txt", "max_new_tokens=null"], "have an end"),
        (["input=good.txt", "output=nowhere/x.jsonl"], "cannot be written"),
        (["prompt=x", "tokenizer=x.json"], "has its own tokenizer"),
    ],
)
def test_mistakes(language_model, command, tmp_path, arguments, said):
    (tmp_path / "good.txt").write_text("x\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}\n{"prompt"\n')
    (tmp_path / "odd.jsonl").write_text('{"promt": "x"}\n')
    before = sorted(language_model.iterdir())
    code, printed, message = command(f"ckpt={language_model}", *arguments)
    assert (code, printed) == (2, "")
    assert said in message
    assert "Traceback" not in message
    assert sorted(language_model.iterdir()) == before


def test_what_a_classifier_and_a_recall_run_do_not_answer(classifier, make_run, command):
    with pytest.raises(UserError, match="which text"):
        predict(classifier)
    with pytest.raises(UserError, match="writes no text"):
        predict(classifier, "x", temperature=0.5)
    run = make_run(
        "experiments=selective_copying_small", "data.samples=64", "data.test_samples=4", *TYPED[:2], TYPED[2]
    )
    code, _, message = command(f"ckpt={run}", "prompt=x")
    assert code == 2
    assert "this run answers no texts" in message
    assert "for recall" in message


def test_texts_of_a_file(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('\ufeff{"text": "a", "id": 1}\n\n{"prompt": "b", "text": "c"}\n', encoding="utf-8")
    assert read_texts(path) == [{"text": "a", "id": 1, "prompt": "a"}, {"prompt": "b", "text": "c"}]
