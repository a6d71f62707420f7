from polymamba.engine.command_line.comparison_curves import draw_curves, save_curves


def run(*values, metric="accuracy"):
    """A metrics.csv: a training row, then a validation every 60 seconds; a last one without its CPU time."""
    lines = [{"stage": "val", "cpu_seconds": str(60 * i), f"val/{metric}": str(each)} for i, each in enumerate(values)]
    return [{"stage": "train", "cpu_seconds": "1", "train/loss": "3"}, *lines, {"stage": "val", f"val/{metric}": "9"}]


def test_a_line_for_each_run_and_a_colour_for_each_row():
    [axis] = draw_curves({"wide": [run(1, 2), run(2, 3, 4)], "narrow": [run(0.5)], "none yet": []}, "accuracy").axes
    assert [list(line.get_xydata()[:, 1]) for line in axis.lines] == [[1, 2], [2, 3, 4], [0.5]]
    assert list(axis.lines[1].get_xdata()) == [0, 1, 2]
    colours = [line.get_color() for line in axis.lines]
    assert colours[0] == colours[1] != colours[2]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["wide", "narrow"]


def test_the_first_column_that_was_validated_is_drawn(tmp_path):
    for runs, metrics, drawn in (
        ([run(1, 2)], ["steps", "accuracy"], True),
        ([run(1, 2, metric="loss")], ["accuracy"], True),
        ([run(1, 2, metric="other")], ["accuracy"], False),
        ([[]], ["accuracy"], False),
        ([], ["accuracy"], False),
    ):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        save_curves({"wide": runs}, metrics, path)
        assert path.is_file() == drawn
