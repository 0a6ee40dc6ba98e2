"""Checks the wording of docstrings, comments and texts in Python files, as part of `make lint`.

    python -m tools.check_wording [FOLDER ...]

Prints file:line for each docstring or comment that begins with a word of `OPENINGS`, because such a sentence fragment
cannot be understood without the name above it, and for each docstring, comment or text that contains a term of
`PRIVATE_TERMS`, for which the field has a common one. Exits with 1 if there is any.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDERS = ("models", "training", "serving", "benchmarks", "examples", "deploy", "tests", "tools")
OPENINGS = ("Of", "That", "Those", "Whose", "Which", "What")
PRIVATE_TERMS = {
    "verdict": "evaluation report",
    "ruler": "metric context",
    "sheet": "grid",
    "strip": "row",
    "seal": "checksum",
    "twin": "debug graph",
    "told": "reported",
    "beside": "next to, compared with",
    "in vain": "unsuccessfully",
    "at once": "immediately, at the same time",
}
"""Terms to avoid, each with the one to use instead. Plurals are found as well."""

_OPENING = re.compile(rf"\W*({'|'.join(OPENINGS)})\b")
_PRIVATE = re.compile(rf"\b({'|'.join(PRIVATE_TERMS)})((?<!beside)s)?\b", re.IGNORECASE)  # "besides" is fine
_CODE = re.compile(r"`[^`]*`|\S*[/_]\S*|\w+(\.\w+)+")
"""Code in backticks, paths, and dotted names, which are not prose."""


class Finding(NamedTuple):
    line: int
    message: str


def main(folders: list[str]) -> None:
    found = False
    for folder in folders or FOLDERS:
        for file in sorted(Path(folder).rglob("*.py")):
            if file.stem.endswith("check_wording"):
                continue  # this file and its test quote the terms
            for finding in check(file.read_text()):
                print(f"{file}:{finding.line}: {finding.message}")
                found = True
    sys.exit(found)


def check(source: str) -> list[Finding]:
    """Checks the source text of one Python file; findings are sorted by line."""
    tree = ast.parse(source)
    docstrings = dict(_docstrings(tree))
    findings = []
    for line, text in [*docstrings.values(), *_comments(source)]:
        if match := _OPENING.match(text):
            findings.append(Finding(line, f"begins with {match[1]!r}; write a full sentence"))
        findings += [Finding(line + text.count("\n", 0, at), message) for at, message in _private_terms(text)]
    for node in ast.walk(tree):
        # A text without a space is a key, an option or a name, and the docstrings were checked above.
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
        if is_text and id(node) not in docstrings:
            findings += [Finding(node.lineno, message) for _, message in _private_terms(node.value)]
    return sorted(set(findings))


def _private_terms(text: str) -> Iterator[tuple[int, str]]:
    """Yields the position of each private term in a text, and the message about it."""
    prose = _CODE.sub(lambda match: " " * len(match[0]), text)
    for match in _PRIVATE.finditer(prose):
        yield match.start(), f"contains {match[0]!r}; write {PRIVATE_TERMS[match[1].lower()]!r}"


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, tuple[int, str]]]:
    """Yields the id of each docstring's node with its line and text.

    A text that stands alone is the docstring of its module, class or function, or of the assignment before it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield id(node.value), (node.lineno, node.value.value)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields each comment with its line. Comments in consecutive lines are one."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("#")
        if block and line == last + 1 and token.line.lstrip().startswith("#"):
            block.append(text)
        else:
            if block:
                yield first, "\n".join(block)
            block, first = [text], line
        last = line
    if block:
        yield first, "\n".join(block)


if __name__ == "__main__":
    main(sys.argv[1:])
