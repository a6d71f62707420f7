"""Every text can be drawn: by another font, or as escapes where no installed font has a sign."""

import io
import warnings

import pytest
import torch

from polymamba.core import lettering
from polymamba.core.explanation import draw_matrix, draw_text
from polymamba.core.lettering import columns, drawable
from polymamba.domains.nlp.text_picture import draw_lines
from polymamba.domains.vision.image_grid import draw_grid

WORDS = ["世界", "🙂", "日本語", "עברית", "हिन्दी", "한국", "plain", "Käse $x_1$ ^", "\ud800", "two\nlines"]


@pytest.fixture(params=["installed", "no other fonts"])
def fonts(request, monkeypatch):
    if request.param == "no other fonts":
        monkeypatch.setattr(lettering, "_font_with", lambda letter: None)
    return request.param


@pytest.mark.parametrize("family", ["DejaVu Sans", "DejaVu Sans Mono"])
def test_what_no_font_has_is_written_as_an_escape(fonts, family):
    assert drawable("plain, Größe ⏎ →", family) == ("plain, Größe ⏎ →", [family])
    if fonts == "no other fonts":
        assert drawable("a世🙂", family) == ("a\\u4e16\\U0001f642", [family])


def test_columns():
    assert [columns(text) for text in ("", "ab", "世界", "é")] == [0, 2, 4, 1]


def drawn(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png")
    return figure


def test_pictures_warn_of_no_missing_sign(fonts):
    count = len(WORDS)
    drawn(draw_lines([[(word, "black"), (word, "red")] for word in WORDS], "".join(WORDS[:3])))
    drawn(draw_text(torch.rand(count), WORDS, 1, heading="世界"))
    drawn(draw_matrix(torch.rand(count, count), WORDS))
    drawn(draw_grid(torch.rand(count, 3, 4, 4), WORDS, "世界 🙂"))


def test_long_wide_texts_stay_within_their_line():
    figure = drawn(draw_text(torch.rand(3), ["世" * 200, "a" * 200, "界"]))
    edges = [patch.get_x() + patch.get_width() for patch in figure.axes[0].patches]
    assert max(edges) <= 80
    figure = draw_lines([[("世" * 200, "black")]], "heading", columns=50)
    assert columns(figure.texts[1].get_text()) <= 50 or "\\u" in figure.texts[1].get_text()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_matrix_of_few_tokens_has_whole_ticks(size):
    figure = drawn(draw_matrix(torch.rand(size, size)))
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert all(float(tick).is_integer() for tick in axis.get_ticklocs())
