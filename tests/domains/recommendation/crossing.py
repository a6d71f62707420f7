"""What recommendation has to say to the tests that cross all domains."""

SHORT = ("data.users=60", "data.items=20", "data.length=8", "data.batch_size=8")
DEFAULT = ("model.channels=16", "model.d_state=4")
ODD = (
    ("data.length=6", "data.batch_size=7", "model.mixer=mamba2", "model.channels=32"),
    ("scan=bidirectional", "task.loss=bce", "task.sampled=3"),
    ("task.loss=sampled", "task.negatives=5", "task.popularity=0.75", "task.filter_seen=true"),
)
PICTURES = ("first_batch.txt", "case_study.txt", "by_history.png")
EXPLAIN = ("explain=occlusion",)


def predict(folder):
    rows = ["user_id,item_id,timestamp", "anna,item 4,10", "anna,item 9,20", "ben,item 7,15"]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    return [
        (), ("input=events.csv", "k=3", "output=top.parquet"), ("input=events.csv", "state=states"), ("similar=item 5",),
        ("users=1,2",), ("compare=whole",),
    ]  # fmt: skip
