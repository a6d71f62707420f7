"""What the toy domain has to say to the tests that cross all domains."""

SHORT = ("trainer.pictures=true",)
DEFAULT = ()
ODD = (("data.samples=1",), ("data.samples=7",))
PICTURES = ("first_points.png", "said.txt")
EXPLAIN = ("input=points.txt", "explain=gradient")


def predict(folder):
    (folder / "points.txt").write_text("0 1 2 3\n3 2 1 0\n1 2 3 0\n")
    return [("input=points.txt",), ("first=1",)]
