"""Parses the labels that a user asks for. docs/labels.md describes the rule with examples."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

from models.common.errors import InputError

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_MAX_LISTED = 100
"""Maximum number of classes that an error message lists."""


class LabelParser:
    """Turns labels into class indices. Each label takes constant time, however many classes there are."""

    def __init__(self, names: Sequence[str]):
        """
        Args:
            names: distinct names of the classes, in the order of their indices.
        """
        self._names = tuple(names)
        self._by_name = {name: index for index, name in enumerate(self._names)}
        self._has_numeric_name = any(_NUMBER.fullmatch(name.strip()) for name in self._names)

    def parse(self, labels: str | Sequence[str | int]) -> list[int]:
        """Turns labels into class indices, by the rule of docs/labels.md.

        Args:
            labels: a text, or a list of class names and indices.

        Raises:
            InputError: there is no label, a label is not a class, or a text mixes names and indices.
        """
        if isinstance(labels, str):
            indices, wrong = self._read_text(labels)
            if labels and not indices and not wrong:
                raise InputError("labels", f"names and indices cannot be mixed in a text; {self._class_list()}")
        else:
            indices, wrong = _each(self._read_item, labels)
        if wrong:
            raise InputError("labels", f"{wrong[0]!r:.60} is not a class; {self._class_list()}")
        if not indices:
            raise InputError("labels", f"give at least one; {self._class_list()}")
        return indices

    def parse_characters(self, text: str) -> list[int]:
        """Turns a text into class indices, one for each character. Each must be the name of a class.

        Raises:
            InputError: a character is not the name of a class.
        """
        indices, wrong = _each(self._by_name.get, text)
        if wrong:
            letters = ", ".join([name for name in self._names if len(name) == 1][:_MAX_LISTED])
            raise InputError(
                "labels", f"{wrong[0]!r} is not a class; the classes of one character are: {letters or 'none'}"
            )
        return indices

    def _read_text(self, text: str) -> tuple[list[int], list[str]]:
        """Returns the class indices of a text and an empty list, or an empty list and the items that could not be read.

        Both lists are empty for an empty text, and for a text in which every item is a class but which mixes names and
        indices.
        """
        items = [item.strip() for item in text.split(",")]
        readings: tuple[tuple[Callable[[str], int | None], Iterable[str]], ...] = (
            (self._by_name.get, [text]),
            (self._by_name.get, items),
            (self._read_index, items),
            (self._by_name.get, text),
        )
        for read, labels in readings:
            indices, wrong = _each(read, labels)
            if not wrong:
                return indices, []
        return [], [text] if len(items) == 1 else _each(self._read_item, items)[1]

    def _read_item(self, label: object) -> int | None:
        """Returns the class index of an item of a list, which is a class name or an index; None if it is neither."""
        if isinstance(label, str):
            index = self._by_name.get(label)
            return self._read_index(label) if index is None else index
        if isinstance(label, Integral) and not isinstance(label, bool) and 0 <= int(label) < len(self._names):
            return int(label)
        return None

    def _read_index(self, text: str) -> int | None:
        """Returns an index written in digits; None if it is not one, or if a class name is a number."""
        digits = text.lstrip("0") or text[-1:]
        if (
            self._has_numeric_name
            or not (text.isascii() and text.isdecimal())
            or len(digits) > len(str(len(self._names)))
        ):
            return None
        return int(digits) if int(digits) < len(self._names) else None

    def _class_list(self) -> str:
        """Returns the end of an error message: the classes and an example of valid labels."""
        names = ", ".join(self._names[:_MAX_LISTED])
        if more := len(self._names) - _MAX_LISTED:
            names += f" and {more:,} more" if more > 0 else ""
        indices = "" if self._has_numeric_name else f" (or their indices, 0 to {len(self._names) - 1})"
        example = ",".join(self._names[:2])
        if self._read_text(example)[0] != [0, 1]:
            example = self._names[0]
        return f"the classes are {names}{indices}; for example {json.dumps(example, ensure_ascii=False)}"


def _each(read: Callable[[Any], int | None], labels: Iterable[Any]) -> tuple[list[int], list[Any]]:
    """Reads each label. Returns the class indices of the labels that are classes, and the labels that are not."""
    pairs = [(label, read(label)) for label in labels]
    return [index for _, index in pairs if index is not None], [label for label, index in pairs if index is None]
