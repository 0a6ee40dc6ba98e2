"""Results that all benchmarks report: medians, a table on the terminal, and a JSON file with machine and options."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine

MIN_WIDTH = 120
"""Minimum width of a table in characters, so that no column is cut off where the output is not a terminal."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    table = Table(*columns, title=title or None)
    for row in rows:
        table.add_row(*row)
    Console(width=max(MIN_WIDTH, Console().width)).print(table)


def median_of_rounds(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the median of each metric over the rounds of a benchmark, which all have the same metrics."""
    return {name: statistics.median(measured[name] for measured in rounds) for name in rounds[0]}


def write_json(
    path: Path | None,
    options: Any,
    results: Mapping[str, Any],
    *,
    device: str = "cpu",
    packages: Sequence[str] = (),
) -> None:
    """Writes the results of a benchmark as JSON; does nothing if `path` is None.

    Args:
        path: the file to write.
        options: the dataclass of the benchmark's options. Paths are left out, because they mean nothing elsewhere.
        results: further keys of the JSON object.
        device: "cpu" or "cuda", the device that was measured.
        packages: names of packages whose versions are written as well; null stands for one that is not installed.
    """
    if path is None:
        return
    values = {name: value for name, value in asdict(options).items() if not _is_path(value)}
    versions = {"versions": {name: _installed_version(name) for name in packages}} if packages else {}
    report = {"machine": machine(device), **versions, "options": values, **results}
    path.write_text(json.dumps(report, indent=2) + "\n")


def _is_path(value: Any) -> bool:
    """Returns whether an option is a path, several paths, or not given."""
    return isinstance(value, Path | None) or (
        isinstance(value, tuple) and any(isinstance(each, Path) for each in value)
    )


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
