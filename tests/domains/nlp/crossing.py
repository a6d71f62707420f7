"""What language has to say to the tests that cross all domains."""

SHORT = (
    "data=text_file", "data.files=sums.txt", "data.length=32", "data.batch_size=4", "data.tokenizer=bpe", "data.vocab_size=270",
    "task.sample=4",
)  # fmt: skip
DEFAULT = ("model.d_model=16", "model.n_layer=1")
ODD = (("data.length=2",), ("data.length=33",), ("data.tokenizer=bytes", "model.mixer=mamba2"))
PICTURES = ("first_batch.png", "worst_predictions.png", "samples.txt")
EXPLAIN = ("prompt=3 and 4", "explain=attribution")


def prepare(folder):
    (folder / "sums.txt").write_text("".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(60)))


def predict(folder):
    (folder / "prompts.txt").write_text("1 and\n2 and\n")
    return [("prompt=1 and", "max_new_tokens=4"), ("input=prompts.txt", "max_new_tokens=4")]


def described(task):
    from types import SimpleNamespace

    import numpy as np

    tokenizer = SimpleNamespace(name="bytes", vocab_size=257, end=256, byte_counts=lambda: np.ones(257, np.int64))
    kind = {"text_classification": "classification"}.get(task, task)
    return {"vocab_size": 257, "length": 16, "task": kind, "num_classes": 2, "classes": ["a", "b"], "tokenizer": tokenizer,
            "test_lengths": [16], "model_size": "micro"}  # fmt: skip
