"""README.md's tables and experiments/RESULTS.md are what the cards and the results files say."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from polymamba.core.errors import UserError
from polymamba.engine.command_line.listing import domains, entries

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "tables.py"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(tables):
    for path, text in tables.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is behind: make readme"


def test_every_model_data_set_and_scan_stands_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind in ("models", "data", "scans"):
        for each in entries(kind):
            assert f"`{each.name}`" in readme, each.name
    for name in domains():
        assert f"| `{name}`: " in readme


def test_every_measured_ratio_stands_in_the_results():
    lines = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    measured = [
        json.loads(path.read_text()) for path in sorted((ROOT / "experiments" / "results").glob("benchmark_*.json"))
    ]
    for column, results in enumerate(measured, start=4):
        for row in results["rows"]:
            if row["suite"] == "profile":
                told = row["case"].endswith("x 256 tokens")
                assert any(line.startswith(f"| {row['case']} |") for line in lines) == told, row
                continue
            head = f"| {row['suite']} | {row['what']} / {row['against']} | {row['case']} |"
            [line] = [line for line in lines if line.startswith(head)]
            ratio = line.split("|")[column].split()[0].replace(",", "")
            assert float(ratio) == pytest.approx(row["ratio"], rel=5e-3), row


def test_a_headline_repeats_what_its_file_says(tables):
    """The figures of a headline stand in the file's own text or rows, or in a benchmark's."""
    for path, result in tables.written_results().items():
        if "headline" not in result:
            continue
        own = " ".join(str(value) for key, value in result.items() if key != "headline")
        rows = [
            r["ratio"] for each in path.parent.glob("benchmark_*.json") for r in json.loads(each.read_text())["rows"]
        ]
        for figure in re.findall(r"(?<![\w^])\d[\d,]*\.\d+", result["headline"]):
            places = len(figure.partition(".")[2])
            assert figure in own or figure in {f"{ratio:.{places}f}" for ratio in rows}, (path.name, figure)


def test_a_page_without_its_marks_is_refused(tables):
    with pytest.raises(UserError, match="make readme"):
        tables.put("# A page\n", "models", ["a line"])


def test_only_what_stands_between_the_marks_is_replaced(tables):
    page = "before\n<!-- x: make readme -->\nold\n<!-- end of x -->\nafter\n"
    once = tables.put(page, "x", ["new"])
    assert once.startswith("before\n<!-- x: make readme -->\n\nnew\n")
    assert once.endswith("<!-- end of x -->\nafter\n")
    assert tables.put(once, "x", ["new"]) == once


@pytest.mark.parametrize(
    ("number", "text"), [(0.9673, "0.967"), (14.0013, "14.0"), (1.0, "1.00"), (884958.4, "884,958")]
)
def test_figures(tables, number, text):
    assert tables._figures(number) == text


def test_the_command_changes_nothing_where_nothing_changed():
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "README.md", ROOT / "experiments" / "RESULTS.md")}
    done = subprocess.run([sys.executable, str(FILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert before == {path: path.stat().st_mtime_ns for path in before}
