import os
from collections import Counter
from pathlib import Path

import pytest

from training.data.messages import counted, enumerated, in_parentheses, printable


@pytest.mark.parametrize(("number", "text"), [(0, "0 files"), (1, "1 file"), (1_200, "1,200 files")])
def test_nouns_agree_with_their_number(number, text):
    assert counted(number, "file") == text


def test_long_lists_are_abbreviated():
    assert enumerated("abcdefgh") == "a, b, c, d, e, f, g, h"
    assert enumerated("abcdefghij") == "a, b, c, d, e, f, g, h and 2 more"


def test_counts_are_listed_in_descending_order():
    assert in_parentheses(Counter({"hidden": 1, ".txt": 1_200})) == " (.txt: 1,200, hidden: 1)"
    assert in_parentheses(Counter()) == ""


def test_bytes_of_a_path_that_are_not_utf8_are_escaped():
    assert printable(Path(os.fsdecode(b"caf\xe9"))) == r"caf\xe9"
