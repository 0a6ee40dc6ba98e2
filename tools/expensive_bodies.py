"""JSON bodies that are as expensive to read as their size allows, for the tests and for `benchmarks.request_cost`.

    python -m tools.expensive_bodies

prints the time and the memory that each of them takes to parse, as JSON.
"""

import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from starlette.datastructures import QueryParams

from serving.http.body_parsing import MAX_COUNT
from serving.http.errors import RequestError
from serving.http.openapi import ROUTES
from serving.http.settings import SETTINGS

HALFWAY = "1.00000000000000011102230246251565404236316680908203125"
"""1 + 2^-53, which is halfway between two float64 numbers: a parser must compute with all digits to round it."""


@dataclass(frozen=True)
class Shape:
    """A JSON body that repeats one item. `%07d` in the item is replaced by the number of the repetition."""

    route: str
    head: str
    item: str
    tail: str

    def body(self, size: int, counts: Mapping[bytes, int] = MappingProxyType({})) -> bytes:
        """Returns a body of `size` bytes with as many items as fit.

        Args:
            counts: maximum number of occurrences in the body, by character.
        """
        head, tail = self.head.encode(), self.tail.encode()
        numbered = "%07d" in self.item
        item = (self.item % 0 if numbered else self.item).encode()
        repeats = (size - len(head) - len(tail)) // len(item)
        for character, most in counts.items():
            if character in item:
                repeats = min(repeats, (most - (head + tail).count(character)) // item.count(character))
        items = "".join(self.item % i for i in range(repeats)) if numbered else self.item * repeats
        return (head + items.encode() + tail).ljust(size)


def _rows(item: str, last: str) -> Shape:
    return Shape("/decode", '{"labels":"1","latents":[', item, last + "]}")


def _row(item: str, last: str) -> Shape:
    return Shape("/decode", '{"labels":"1","latents":[[', item, last + "]]}")


def _labels(item: str, last: str) -> Shape:
    return Shape("/generate", '{"labels":[', item, last + "]}")


def _text(item: str) -> Shape:
    return Shape("/generate", '{"labels":"', item, '"}')


def latents(rows: int, dim: int, length: int) -> str:
    """Returns rows of `dim` random numbers of `length` characters each, as JSON."""
    numbers = random.Random(0)
    row = ",".join(f"{numbers.gauss(0, 1):.17f}"[:length].ljust(length, "7") for _ in range(dim))
    return ",".join([f"[{row}]"] * rows)


SHAPES: dict[str, Shape] = {
    # Latents.
    "1,024 rows of 64 long numbers": _rows(" ", latents(1_024, 64, 62)),
    "1,023 rows of 256 numbers": _rows(latents(1, 256, 15) + ",", latents(1, 256, 15)),
    "rows of 64 numbers": _rows(latents(1, 64, 19) + ",", latents(1, 64, 19)),
    "a row of zeros": _row("0,", "0"),
    "a row of 0.5": _row(".5,".rjust(4, "0"), "0.5"),
    "a row of exponents": _row("1e9,", "1e9"),
    "a row of numbers that need exact rounding": _row(f"{HALFWAY},", HALFWAY),
    "a row of subnormal numbers": _row("2.2250738585072011e-308,", "0"),
    "a row of integers of 300 digits": _row("9" * 300 + ",", "0"),
    "a row of integers of 4,300 digits": _row("9" * 4_300 + ",", "0"),
    "a row of not-a-numbers": _row("NaN,", "NaN"),
    "a row of texts": _row('"",', '""'),
    "a row of nulls": _row("null,", "null"),
    "a row of lists": _row("[],", "[]"),
    "a row of objects": _row("{},", "{}"),
    "rows of nothing": _rows("[],", "[]"),
    "rows of one number": _rows("[0],", "[0]"),
    "rows of one text": _rows('[""],', '[""]'),
    "texts for rows": _rows('"",', '""'),
    "objects for rows": _rows('{"a":0},', "{}"),
    "numbers for rows": _rows("0,", "0"),
    "an integer of all digits": _row("9", ""),
    "a fraction of all digits": Shape("/decode", '{"latents":[[0.', "3", "]]}"),
    "an exponent of all digits": Shape("/decode", '{"latents":[[1e', "9", "]]}"),
    # Labels.
    "a text": _text("1"),
    "a text of commas": _text(","),
    "a text of brackets": _text("[{"),
    "a text of newlines": _text("\\n"),
    "a text of backslashes": _text("\\\\"),
    "a text of escaped letters": _text("\\u0041"),
    "a text of surrogate pairs": _text("\\ud83d\\ude00"),
    "a text of lone surrogates": _text("\\ud83d"),
    "a text of accents": _text("é"),
    "a text of letters and one emoji": Shape("/generate", '{"labels":"😀', "1", '"}'),
    "labels of different texts": _labels('"%07d",', '"0"'),
    "labels of empty texts": _labels('"",', '""'),
    "labels of digits": _labels("0,", "0"),
    "labels of fractions": _labels("0.5,", "0.5"),
    "labels of nulls": _labels("null,", "null"),
    "labels of lists": _labels("[],", "[]"),
    "labels of objects": _labels("{},", "{}"),
    "labels of integers of 4,300 digits": _labels("9" * 4_300 + ",", "0"),
    "one label of many letters": Shape("/generate", '{"labels":["', "x", '"]}'),
    "10,000 labels of 400 letters": _labels('"' + "x" * 400 + '",', '"x"'),
    # Fields.
    "unknown fields": Shape("/generate", "{", '"%07d":0,', '"n":1}'),
    "unknown fields of an inner object": Shape("/interpolate", '{"from":{', '"%07d":0,', '"a":1}}'),
    "unknown fields of many objects": Shape("/generate", '{"a":[', '{"%07d":0},', "{}]}"),
    "an unknown field of many letters": Shape("/generate", '{"', "x", '":1}'),
    "an unknown field with a long list": Shape("/generate", '{"x":[', "0,", "0]}"),
    "a field many times": Shape("/generate", "{", '"n":1,', '"n":1}'),
    "a wrong field many times": Shape("/generate", "{", '"n":"",', '"n":""}'),
    "latents many times": Shape("/decode", "{", '"latents":[[0]],', '"latents":[[0]]}'),
    "a number with a long list": Shape("/generate", '{"n":[', '"",', '""]}'),
    "a text of 64 with many letters": Shape("/write", '{"text":"', "1", '"}'),
    # Invalid or unusual JSON.
    "deep lists": _rows("[", ""),
    "deep lists that end": Shape("/generate", '{"n":' + "[" * 100_000, " ", "]" * 100_000 + "}"),
    "deep objects": Shape("/generate", "", '{"a":', ""),
    "a list": Shape("/generate", "[", "0,", "0]"),
    "a list of lists": Shape("/generate", "[", "[],", "0]"),
    "white space": Shape("/generate", "{", " ", "}"),
    "no JSON": Shape("/generate", "", "x", ""),
    "a text without an end": Shape("/generate", '{"labels":"', "x", ""),
    "something after the end": Shape("/generate", '{"latents":[', "0,", "0]}}"),
    "fields for a route without any": Shape("/card", "{", '"%07d":0,', '"n":1}'),
}


TOO_MANY = ("a row of texts", "a row of lists", "rows of nothing", "unknown fields")
"""Shapes that are also sent with more values than the service accepts."""


def bodies() -> Iterator[tuple[str, str, bytes]]:
    """Yields the name, route and JSON of each body. All have the maximum size and the maximum number of values."""
    for name, shape in SHAPES.items():
        yield name, shape.route, shape.body(SETTINGS.max_json_bytes, MAX_COUNT)
    for name in TOO_MANY:
        yield f"{name}, too many", SHAPES[name].route, SHAPES[name].body(SETTINGS.max_json_bytes)


@dataclass(frozen=True)
class Cost:
    """Cost of parsing one body."""

    seconds: float
    """Processor time."""
    mebibytes: float
    """Growth of the largest memory that the process has used. The body was in memory before."""
    message: str
    """Error message; empty if the body is valid."""


def read(route: str, body: bytes, query: bytes = b"") -> str:
    """Reads a body as the service does. Returns the error message, or an empty string if the body is valid."""
    try:
        ROUTES[route].fields.parse(body, QueryParams(query), {})
    except RequestError as error:
        if error.status != 400:
            raise
        return error.message
    return ""


def measure(route: str, body: bytes) -> Cost:
    """Measures the cost of parsing one body in this process."""
    read(route, b"{}")  # the first request of a route allocates memory that later ones reuse
    before = _largest_mebibytes()
    started = time.process_time()
    message = read(route, body)
    return Cost(time.process_time() - started, _largest_mebibytes() - before, message)


def _largest_mebibytes() -> float:
    """Returns the largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    costs = {}
    for name, route, body in bodies():
        from_child, to_parent = os.pipe()
        if (
            not os.fork()
        ):  # a new process, because memory that was freed after one body would hide the memory of the next
            os.write(to_parent, json.dumps(asdict(measure(route, body))).encode())
            os._exit(0)
        os.close(to_parent)
        with os.fdopen(from_child, "rb") as stream:
            costs[name] = json.loads(stream.read())
        os.wait()
    print(json.dumps(costs, indent=2))


if __name__ == "__main__":
    main()
