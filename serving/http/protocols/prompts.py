"""Finds the classes that a prompt asks for. docs/openai.md describes the rule with examples."""

from collections.abc import Sequence
from functools import cache

from models.common.errors import InputError

MAX_LISTED = 100
"""Maximum number of classes that an error message lists."""


class PromptReader:
    """Turns prompts into class indices. The time depends on the length of the prompt and not on the number of classes.

    Args:
        names: distinct names of the classes, in the order of their indices.
    """

    def __init__(self, names: Sequence[str]):
        self._names = tuple(names)
        self._by_name = {name: index for index, name in enumerate(self._names)}
        self._by_folded: dict[str, int] = {}
        """Indices by the names without the difference between capital and small letters; the first of equal ones."""
        for name, index in self._by_name.items():
            self._by_folded.setdefault(name.casefold(), index)
        self._lengths = sorted({len(name) for name in self._by_folded if len(name) > 1}, reverse=True)

    def read(self, prompt: str) -> list[int]:
        """Returns the class indices in the order in which they are to be drawn.

        Raises:
            InputError: the prompt has no class.
        """
        words = prompt.split()
        named = [self._index(word) for word in words]
        if words and None not in named:
            return [index for index in named if index is not None]
        if len(words) == 1:
            letters = [self._index(letter) for letter in words[0]]
            if None not in letters:
                return [index for index in letters if index is not None]
        found = self._scan(prompt.casefold())
        if not found:
            listed = ", ".join(self._names[:MAX_LISTED])
            more = len(self._names) - MAX_LISTED
            listed += f" and {more:,} more" if more > 0 else ""
            raise InputError("prompt", f"it has no class that the model can draw; the classes are {listed}")
        return found

    def _index(self, name: str) -> int | None:
        index = self._by_name.get(name)
        return self._by_folded.get(name.casefold()) if index is None else index

    def _scan(self, prompt: str) -> list[int]:
        """Returns the longer names that are whole words, and all digits that are class names."""
        found = []
        position = 0
        while position < len(prompt):
            name = self._name_at(prompt, position)
            if name is None and prompt[position].isdecimal() and prompt[position] in self._by_name:
                name = prompt[position]
            if name is not None:
                found.append(self._by_folded[name])
            position += len(name) if name else 1
        return found

    def _name_at(self, prompt: str, start: int) -> str | None:
        """Returns the longest name, of several characters, that begins at a position and is not a part of a word."""
        if start and _is_inside_word(prompt, start):
            return None
        for length in self._lengths:
            end = start + length
            name = prompt[start:end]
            if name in self._by_folded and len(name) == length and not _is_inside_word(prompt, end):
                return name
        return None


def _is_inside_word(text: str, position: int) -> bool:
    """Returns whether a position separates two letters or digits."""
    return position < len(text) and text[position - 1].isalnum() and text[position].isalnum()


@cache
def prompt_reader(names: tuple[str, ...]) -> PromptReader:
    """Returns the reader for the classes of a model."""
    return PromptReader(names)
