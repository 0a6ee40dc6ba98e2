"""The check of wording that `make lint` runs."""

import pytest

from tools.check_wording import check


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""What the module does."""', [1]),
        ('class A:\n    """Of one image."""', [2]),
        ('def f():\n    """Those that wait."""', [2]),
        ('size = 3\n"""Whose unit is bytes."""', [2]),
        ("x = 1  # which is enough\ny = 2  # Which is enough", [2]),
        ("# One line,\n# That of a block", []),
        ("#: That is fine", [1]),
        ('"""Offers what is needed. Often enough."""', []),
        ('text = "What is wrong"', []),
    ],
)
def test_a_docstring_or_comment_that_begins_with_a_fragment_is_reported(source, lines):
    assert [finding.line for finding in check(source)] == lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""One line.\n\nThe verdict of it.\n"""', [3]),
        ("x = 1  # next to it, not beside it", [1]),
        ('raise ValueError("all sheets were told at once")', [1, 1, 1]),
        ('raise ValueError(f"{n} images were\\ntold")', [1]),
        ('"""It was reported, not told."""', [1]),
        ('columns = {"sheet": 1}', []),
        ('verdict = text.strip("a b")', []),
        ('"""Calls `text.strip` and reads tests/sheet.png."""', []),
        ('"""Stripes, a striped sheetrock, besides."""', []),
    ],
)
def test_a_private_term_is_reported_in_prose_but_not_in_names(source, lines):
    assert [finding.line for finding in check(source)] == lines
