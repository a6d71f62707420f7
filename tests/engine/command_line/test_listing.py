"""--list says what may be chosen, from the cards, without a model's code."""

import re
import subprocess
import sys

import pytest

from polymamba.core.errors import UserError
from polymamba.core.scans.modes import MODES
from polymamba.engine.command_line.listing import COLUMNS, KINDS, domains, entries, rounded, show_list
from polymamba.engine.command_line.main import main
from polymamba.engine.command_line.options import Options

NEEDED = {
    "models": {"title", "sizes", "counted"},
    "data": {"title", "source", "licence", "size", "needs"},
    "scans": {"title", "paper", "axes"},
    "experiments": {"title", "paper"},
}


def listed(capsys, *words):
    assert show_list(words, Options(())) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_has_a_card(kind):
    found = entries(kind)
    assert found
    for each in found:
        assert NEEDED[kind] <= set(each.card), each.name
        assert all(
            set(row) == {"data", "metric", "value", "of"} for row in each.card.get("published", ()) if kind == "models"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_line_for_each_name_and_a_head(kind, capsys):
    lines = listed(capsys, kind).splitlines()
    assert lines[0].split()[0] == "name"
    assert [line.split()[0] for line in lines[1:]] == [each.name for each in entries(kind)]
    assert listed(capsys, kind.removesuffix("s")).splitlines() == lines


def test_nothing_asked_for_is_everything(capsys):
    text = listed(capsys)
    assert [line for line in text.splitlines() if line in KINDS] == list(KINDS)


@pytest.mark.parametrize("domain", domains())
def test_a_domain_has_its_own_and_the_scans_that_walk_its_axes(domain, capsys):
    names = [line.split()[0] for line in listed(capsys, "scans", domain).splitlines()[1:]]
    axes = set(domains()[domain].card["axes"])
    assert set(names) == {name for name, mode in MODES.items() if axes & set(mode.ndims)}
    names = [line.split()[0] for line in listed(capsys, f"domain={domain}", "models").splitlines()[1:]]
    assert names == [each.name for each in entries("models") if domain in each.domains]


def test_a_star_stands_for_any_letters(capsys):
    names = [line.split()[0] for line in listed(capsys, "scans", "Cross*").splitlines()[1:]]
    assert set(names) == {name for name in MODES if name.startswith("cross")}


def test_a_name_gives_the_whole_card(capsys):
    model = entries("models")[0]
    text = listed(capsys, model.name)
    assert text.startswith(f"{model.name}: {model.card['title']}\n")
    assert all(f"{count:,}" in text for count in model.card["sizes"].values())
    assert "  parameters: window=7, flip=false" in listed(capsys, "scans", "local").splitlines()


@pytest.mark.parametrize(("words", "near"), [(("modles",), "models"), (("scans", "hilbret"), "hilbert")])
def test_a_word_that_is_nothing_is_a_mistake(words, near):
    with pytest.raises(UserError, match=f"--list {near}"):
        show_list(words, Options(()))
    assert main(["--list", *words]) == 2


def test_a_pattern_that_fits_nothing_is_a_mistake():
    with pytest.raises(UserError, match="nothing is called that"):
        show_list(["models", "zz*"], Options(()))


def test_a_folder_of_ones_own(tmp_path, capsys):
    """A model for any domain, one of a domain of its own, and one without a card."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("card: {title: My net, sizes: {only: 12}}\n_target_: my.Net\n")
    (tmp_path / "model" / "bare.yaml").write_text("_target_: my.Net\n")
    (tmp_path / "sky" / "model").mkdir(parents=True)
    (tmp_path / "sky" / "domain.yaml").write_text("card: {title: stars, axes: [3]}\n")
    (tmp_path / "sky" / "model" / "star.yaml").write_text("card: {title: A star}\n")
    assert main([f"--config-dir={tmp_path}", "--list", "models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "My net" in lines["mine"]
    assert "only 12" in lines["mine"]
    assert lines["bare"] == "bare"
    assert main([f"--config-dir={tmp_path}", "--list", "sky", "models"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"name", "bare", "mine", "star"}
    assert main([f"--config-dir={tmp_path}", "--list", "sky", "data"]) == 0
    assert capsys.readouterr().out == "nothing yet\n"
    assert main([f"--config-dir={tmp_path}", "--list", "sky"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line in KINDS] == ["models", "scans"]
    (tmp_path / "model" / "bare.yaml").write_text("a: [\n")
    assert main([f"--config-dir={tmp_path}", "--list"]) == 2
    assert "bare.yaml cannot be read" in capsys.readouterr().err


def test_a_terminal_gets_a_table_that_fits_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = re.sub(r"\x1b\[\d*m", "", listed(capsys, "models")).splitlines()
    assert max(map(len, lines)) <= 80
    assert set(COLUMNS["models"]) <= set(lines[0].split())


def test_neither_torch_nor_hydra_is_imported():
    code = (
        "import sys; from polymamba.engine.command_line.main import main; main(['--list']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'omegaconf', 'lightning', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12"), (165_130, "165K"), (7_148_008, "7.1M"), (97_598_440, "98M"), (2_768_345_600, "2.8B")],
)
def test_counts_are_rounded(count, text):
    assert rounded(count) == text
