"""Parts of messages about files: numbers, lists and paths."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

MAX_NAMES = 8
"""Largest number of names in one message."""


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def enumerated(names: Iterable[str]) -> str:
    """Returns the first `MAX_NAMES` names, and how many more there are: "a, b and 3 more"."""
    names = list(names)
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")


def in_parentheses(counts: Counter[str], prefix: str = "") -> str:
    """Returns counts by reason, most frequent first: " (.txt: 12, hidden: 1)"; empty if there are none.

    `prefix` precedes the counts inside the parentheses.
    """
    listed = ", ".join(f"{reason}: {count:,}" for reason, count in counts.most_common())
    return f" ({prefix}{listed})" if counts else ""


def printable(path: Path) -> str:
    r"""Returns a path that any terminal can print: bytes that are not valid UTF-8 become escapes such as \xe9."""
    return os.fsencode(path).decode(errors="backslashreplace")
