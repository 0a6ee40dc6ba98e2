"""The rule by which labels are read, wherever they can be given; docs/labels.md describes it with examples."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

from models.common.errors import InputError

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_LISTED = 100
"""Classes that an error message lists at most."""


class Classes:
    """The classes of a generator. Reads labels, each of them in constant time."""

    def __init__(self, names: Sequence[str]):
        self._names = tuple(names)
        self._by_name = {name: index for index, name in enumerate(self._names)}
        self._numbered = any(_NUMBER.fullmatch(name.strip()) for name in self._names)

    def read(self, labels: str | Sequence[str | int]) -> list[int]:
        """Turns labels into class indices.

        Args:
            labels: a text, or a list of class names and indices.

        Raises:
            InputError: there is no label, or one that is not a class.
        """
        if isinstance(labels, str):
            indices, wrong = self._read_text(labels)
        else:
            indices, wrong = _each(self._read_item, labels)
        if wrong:
            raise InputError("labels", f"{wrong[0]!r:.60} is no class; {self._described()}")
        if not indices:
            raise InputError("labels", f"give at least one; {self._described()}")
        return indices

    def spell(self, text: str) -> list[int]:
        """Turns a text into class indices: each of its characters is the name of a class.

        Raises:
            InputError: a character is not the name of a class.
        """
        indices, wrong = _each(self._by_name.get, text)
        if wrong:
            letters = ", ".join([name for name in self._names if len(name) == 1][:_LISTED])
            raise InputError("labels", f"{wrong[0]!r} is no class; those of one character are: {letters or 'none'}")
        return indices

    def _read_text(self, text: str) -> tuple[list[int], list[str]]:
        """Returns class indices, or else the items that are not classes. An empty text yields neither."""
        items = [item.strip() for item in text.split(",")]
        ways: tuple[tuple[Callable[[str], int | None], Iterable[str]], ...] = (
            (self._by_name.get, [text]),
            (self._by_name.get, items),
            (self._read_index, items),
            (self._by_name.get, text),
        )
        for read, labels in ways:
            indices, wrong = _each(read, labels)
            if not wrong:
                return indices, []
        if len(items) == 1:
            return [], [text]
        # A list of names and indices has no wrong item, but may not mix them.
        return [], _each(self._read_item, items)[1] or _each(self._by_name.get, items)[1]

    def _read_item(self, label: object) -> int | None:
        """Reads an item of a list: a class name, else an index."""
        if isinstance(label, str):
            index = self._by_name.get(label)
            return self._read_index(label) if index is None else index
        if isinstance(label, Integral) and not isinstance(label, bool) and 0 <= int(label) < len(self._names):
            return int(label)
        return None

    def _read_index(self, text: str) -> int | None:
        """Reads an index in digits, unless a class name is a number."""
        digits = text.lstrip("0") or text[-1:]
        if self._numbered or not (text.isascii() and text.isdecimal()) or len(digits) > len(str(len(self._names))):
            return None
        return int(digits) if int(digits) < len(self._names) else None

    def _described(self) -> str:
        names = ", ".join(self._names[:_LISTED])
        if more := len(self._names) - _LISTED:
            names += f" and {more:,} more" if more > 0 else ""
        indices = "" if self._numbered else f" (or their indices, 0 to {len(self._names) - 1})"
        example = ",".join(self._names[:2])
        if self._read_text(example)[0] != [0, 1]:
            example = self._names[0]
        return f"the classes are {names}{indices}; for example {json.dumps(example, ensure_ascii=False)}"


def _each(read: Callable[[Any], int | None], labels: Iterable[Any]) -> tuple[list[int], list[Any]]:
    """Reads each label. Returns the indices of those that could be read, and the labels that could not."""
    pairs = [(label, read(label)) for label in labels]
    return [index for _, index in pairs if index is not None], [label for label, index in pairs if index is None]
