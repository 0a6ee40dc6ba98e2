"""Labels are read by the rule of docs/labels.md."""

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.common.errors import InputError
from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED

CARD = Generator.open(SHIPPED).card
WORDS = st.text(alphabet="ab01,- ", min_size=1, max_size=4)
"""Words from a small alphabet, in which names, indices and separators are often ambiguous."""


def with_classes(*names: str) -> Card:
    return replace(CARD, dataset=replace(CARD.dataset, class_names=names, class_counts=(1,) * len(names)))


def meaning(names: list[str], text: str) -> list[int] | None:
    """Reads a text by the rule of docs/labels.md, written for clarity and not for speed."""
    items = [item.strip() for item in text.split(",")]
    numbers = [int(item) if item.isdecimal() else -1 for item in items]
    if text in names:
        return [names.index(text)]
    if all(item in names for item in items):
        return [names.index(item) for item in items]
    if not any(is_number(name) for name in names) and all(0 <= number < len(names) for number in numbers):
        return numbers
    if text and all(character in names for character in text):
        return [names.index(character) for character in text]
    return None


def is_number(name: str) -> bool:
    return name.strip().removeprefix("-").isdecimal()


@given(st.data(), st.lists(WORDS, min_size=1, max_size=5, unique=True))
def test_every_text_is_read_by_the_rule_or_rejected_with_a_valid_example(data, names):
    words = st.sampled_from(names) | WORDS | st.integers(0, 6).map(str)
    separators = st.sampled_from([",", ", ", " ,", ""])
    text = data.draw(separators.flatmap(lambda between: st.lists(words, max_size=4).map(between.join)))
    card = with_classes(*names)
    expected = meaning(names, text)
    if expected is not None:
        assert card.class_indices(text) == expected
        return
    with pytest.raises(InputError) as caught:
        card.class_indices(text)
    assert ", ".join(names) in caught.value.message
    assert card.class_indices(json.loads(caught.value.message.partition("for example ")[2]))


@pytest.mark.parametrize(
    ("names", "text", "indices"),
    [
        ("0123456789", "10", [1, 0]),
        ("0123456789", "0123", [0, 1, 2, 3]),
        ("0123456789", "3, 8", [3, 8]),
        (("1", "2", "10"), "10", [2]),
        (("cats",), "cats", [0]),
        (("cats", "dogs"), "dogs", [1]),
        (("cats", "dogs"), " dogs ,cats", [1, 0]),
        (("cats", "dogs"), "1", [1]),
        (("cats", "dogs"), "1, 0", [1, 0]),
        (("cats", "dogs"), "01", [1]),
        (("dogs and cats", "d"), "dogs and cats", [0]),
        (("cats, dogs", "birds"), "cats, dogs", [0]),
        (("cats, dogs", "cats", "dogs"), "cats,dogs", [1, 2]),
        (("b", "a", ","), "a,b", [1, 0]),
        (("b", "a", ","), "a,", [1, 2]),
    ],
)
def test_the_first_interpretation_that_fits_the_text_is_used(names, text, indices):
    assert with_classes(*names).class_indices(text) == indices


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (("cats", "dogs"), "", "give at least one; the classes are cats, dogs"),
        (("cats", "dogs"), [], "give at least one; the classes are cats, dogs"),
        (
            ("cats", "dogs"),
            "cats, cows",
            "'cows' is not a class; the classes are cats, dogs (or their indices, 0 to 1); for example \"cats,dogs\"",
        ),
        (("cats", "dogs"), "cats,0", "names and indices cannot be mixed in a text; the classes are cats, dogs (or"),
        (("cats", "dogs"), "cats,1", "names and indices cannot be mixed in a text; the classes are cats, dogs (or"),
        (("cats", "dogs"), "0,2", "'2' is not a class"),
        (("cats", "dogs"), "9" * 5_000, "'99999"),
        (("cats", "dogs"), "-1", "'-1' is not a class"),
        (("cats", "dogs"), "¹", "'¹' is not a class"),
        (("7", "8", "9"), "0", "'0' is not a class; the classes are 7, 8, 9; for example \"7,8\""),
        (("cats, dogs",), "cats", "'cats' is not a class; the classes are cats, dogs (or their indices, 0 to 0); for "),
        (("cats", "dogs"), [True], "True is not a class"),
        (("cats", "dogs"), [[0]], "[0] is not a class"),
        (("cats", "dogs"), [" cats"], "' cats' is not a class"),
        (("cats", "dogs"), [2], "2 is not a class"),
        (("7", "8", "9"), ["0"], "'0' is not a class"),
    ],
)
def test_an_error_names_the_invalid_label_and_the_classes(names, labels, message):
    with pytest.raises(InputError) as caught:
        with_classes(*names).class_indices(labels)
    assert caught.value.field == "labels"
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 300


def test_an_item_of_a_list_is_a_name_or_an_index():
    assert with_classes("1", "2", "3").class_indices(["1", 1]) == [0, 1]
    assert with_classes("cats", "dogs").class_indices(["dogs", 0, "1"]) == [1, 0, 1]


@given(st.lists(st.integers(0, 999), min_size=1, max_size=50))
@example([999] * 10_000)
def test_any_of_a_thousand_classes_can_be_named_in_a_list_or_a_text(indices):
    card = with_classes(*(f"class {index}" for index in range(1_000)))
    names = [f"class {index}" for index in indices]
    for labels in (names, ", ".join(names), indices, ",".join(map(str, indices))):
        assert card.class_indices(labels) == indices


def test_an_error_lists_the_first_of_many_classes_and_counts_the_rest():
    with pytest.raises(InputError, match=r"class 99 and 900 more \(or their indices, 0 to 999\)"):
        with_classes(*(f"class {index}" for index in range(1_000))).class_indices("x")


def test_only_classes_of_one_character_can_be_given_by_character():
    assert with_classes("a", "b", "cc").class_indices_by_character("abba") == [0, 1, 1, 0]
    for text in ("a1", "cc", "a,b", "0"):
        with pytest.raises(InputError, match=r"is not a class; the classes of one character are: a, b$"):
            with_classes("a", "b", "cc").class_indices_by_character(text)
    with pytest.raises(InputError, match="the classes of one character are: none"):
        with_classes("cats").class_indices_by_character("c")
