"""The table of an evaluation report, for the console and for the HTML page."""

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Column, Table

from training.evaluation.evaluation_report import EvaluationReport
from training.evaluation.metrics import METRICS, Measurement, MetricError

COST_TITLES = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds per image",
    "bytes": "bytes",
    "images_per_second": "images/s on one CPU thread",
}
"""Titles of the rows about cost, by field of `Cost`."""


WIDTH_OF_A_FILE = 10_000
"""Number of characters of a line if standard output is a file or a pipe, which can be wider than a terminal."""


def print_report(report: EvaluationReport) -> None:
    """Prints the conditions, the table, published results and notes to standard output."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    for condition in report.conditions:
        console.print(condition, highlight=False, soft_wrap=True)
    first, *others = column_titles(report)
    table = Table(Column(first, no_wrap=True), *others)
    for row in table_rows(report):
        table.add_row(*row)
    console.print(table)
    if report.published:
        published = Table("published", "classes covered", "class balance, KL", "source")
        for result in report.published:
            published.add_row(result.name, str(result.modes), f"{result.kl:g}", result.source)
        console.print(published)
    for note in notes(report):
        console.print(note, highlight=False, soft_wrap=True)


def column_titles(report: EvaluationReport) -> tuple[str, ...]:
    """Returns the column titles: metric (without a title), one per source, real data, and the better direction."""
    return "", *(result.source.name for result in report.results), "real data", "better"


def table_rows(report: EvaluationReport) -> Iterator[tuple[str, ...]]:
    """Yields one row per metric, then one per kind of cost, with a cell per column, empty if a value is missing."""
    columns = (*(result.measurements for result in report.results), report.real_data_baseline)
    for name in report.real_data_baseline:
        metric = METRICS[name]
        yield metric.title, *(_cell(values[name], metric.percent) for values in columns), metric.better
        if name == "fid":
            ratios = (report.fid_ratio(values) for values in columns)
            yield "  ratio to real data", *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios), "lower"
    for field, title in COST_TITLES.items():
        amounts = [getattr(result.cost, field, None) for result in report.results]
        if any(amounts):
            yield title, *("" if amount is None else f"{amount:,.0f}" for amount in amounts), "", ""


def notes(report: EvaluationReport) -> Iterator[str]:
    """Yields the reasons of missing metrics, and a warning if metrics were measured with a weak classifier."""
    for result in report.results:
        titles_by_reason: dict[str, list[str]] = {}
        for name, value in result.measurements.items():
            if isinstance(value, MetricError):
                titles_by_reason.setdefault(str(value), []).append(METRICS[name].title)
        for reason, titles in titles_by_reason.items():
            yield f"{result.source.name}: not measured: {', '.join(titles)} ({reason})"
    if report.classifier_problem and report.test_sample.context.classifier_usable:
        yield f"Warning: {report.classifier_problem}"


def _cell(value: Measurement | MetricError, percent: bool) -> str:
    if isinstance(value, MetricError):
        return ""
    text = f"{value.value:.2%}" if percent else f"{value.value:.4g}"
    if value.standard_error is None:
        return text
    return text + (f" ± {value.standard_error:.2%}" if percent else f" ± {value.standard_error:.1g}")
