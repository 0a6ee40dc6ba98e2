"""Results of the check: rows, stages, the JSON file and the Markdown table.

This module needs only the standard library, because it is also used where PyTorch is missing.
"""

import json
import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped", "measured", "running"]
"""Status of a row or a stage. A row with a bound is passed or failed, a row without one is measured. A stage is running
until its process ends.
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    status: Status
    value: float | None = None
    unit: str = ""
    bound: str = ""
    """Required bound or desired goal of the value, as text."""
    note: str = ""

    def __str__(self) -> str:
        value = "" if self.value is None else f"{_number(self.value)} {self.unit}".strip()
        return "  ".join(part for part in (f"{self.status:8}", self.name, value, self.bound, self.note) if part)


@dataclass
class StageResult:
    """Outcome of a stage: status, duration, measurements and details."""

    status: Status = "running"
    message: str = ""
    """Reason why the stage failed or was skipped; empty otherwise."""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """Results that do not fit into rows, as values that JSON can represent."""

    @classmethod
    def read(cls, path: Path) -> "StageResult":
        """Reads the results that a stage has written so far. The file is complete, because it is renamed into place."""
        values = json.loads(path.read_text())
        return cls(**values | {"rows": [Row(**row) for row in values["rows"]]})


class Skip(Exception):  # noqa: N818  # not an error
    """A stage, or a part of one, cannot run on this machine. The message has the reason."""


class Recorder:
    """Collects the rows of one stage and writes its result file after each row."""

    def __init__(self, path: Path):
        self.path = path
        self.result = StageResult()
        self.write()

    def row(
        self,
        name: str,
        value: float | None = None,
        unit: str = "",
        *,
        status: Status | None = None,
        bound: str = "",
        note: str = "",
    ) -> None:
        """Adds a row. The status is "measured" by default, and always "failed" if the value is not finite."""
        if value is not None and not math.isfinite(value):
            status, note = "failed", f"{note} the value is {value}".strip()
            value = None  # JSON has no NaN
        self.result.rows.append(Row(name, status or "measured", value, unit, bound, note))
        self.write()

    def detail(self, name: str, value: Any) -> None:
        self.result.details[name] = value
        self.write()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Encloses a part of a stage: an exception becomes a row with that name, and the stage continues."""
        try:
            yield
        except Skip as skip:
            self.row(name, status="skipped", note=str(skip))
        except Exception as error:  # a failure in one part must not prevent the parts after it
            traceback.print_exc()
            self.row(name, status="failed", note=one_line(error))

    def finish(self, status: Status, message: str = "") -> None:
        """Sets the final status of the stage and writes the report. A "passed" with failed rows becomes "failed"."""
        if status == "passed" and (failed := sum(row.status == "failed" for row in self.result.rows)):
            status, message = "failed", f"{failed} of {len(self.result.rows)} rows failed"
        self.result.status, self.result.message = status, message
        self.write()

    def write(self) -> None:
        replace_text(self.path, json.dumps(asdict(self.result)))


def one_line(error: BaseException, length: int = 300) -> str:
    """Returns the type and the message of an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:length]


def replace_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name and renames it, so that a reader never sees an incomplete file."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)


def markdown(report: dict[str, Any]) -> str:
    """Returns the report of `__main__.py`, which is also written as JSON, as Markdown tables."""
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    lines = [f"# GPU check: {report['status']}", "", f"`{report['command']}` on {report['date']}; {machine}", ""]
    for name, stage in report["stages"].items():
        lines += [f"## {name}: {stage['status']} ({stage['seconds']:.0f} s)", ""]
        if stage["message"]:
            lines += [stage["message"], ""]
        if stage["rows"]:
            lines += ["| check | status | value | bound or goal | note |", "| --- | --- | --- | --- | --- |"]
            lines += [_table_row(Row(**row)) for row in stage["rows"]] + [""]
    return "\n".join(lines)


def _table_row(row: Row) -> str:
    value = "" if row.value is None else f"{_number(row.value)} {row.unit}".strip()
    cells = (row.name, row.status, value, row.bound, row.note)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
