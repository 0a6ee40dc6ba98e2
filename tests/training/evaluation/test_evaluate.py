"""The command `evaluate` on a toy MNIST: its table, JSON file and page, rather than the quality of the digits."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.checkpoint import load_checkpoint
from models.export.exporter import export
from models.onnx_file.generator import Generator
from tests.conftest import small_run
from tests.training.evaluation.conftest import run_evaluate, toy_mnist
from training import data
from training.evaluation import classifier, evaluator
from training.evaluation.metrics import METRICS
from training.evaluation.sources import ImageSource, SourceError

WRONG = 7
"""Index of the image that `write_digits` gives a wrong label."""


def write_digits(path: Path, n: int) -> Path:
    digits = data.load_dataset("uci-digits", path.parent)
    labels = digits.labels[:n].clone()
    labels[WRONG] = (labels[WRONG] + 5) % 10
    np.savez(path, images=digits.images[:n, 0], labels=labels)
    return path


@pytest.fixture(scope="module")
def evaluated(runs, files, tmp_path_factory) -> Iterator[Path]:
    """A folder with metrics.json and report/ of a model file, two runs, one of them with an EMA, and an .npz file."""
    folder = tmp_path_factory.mktemp("evaluated")
    small_run(folder / "run", conditional=True, ema_half_life=1_000, images=640)
    real = write_digits(folder / "<b>300 & more.npz", 300)
    sources = files["unconditional"], folder / "run", runs["unconditional"], real
    with toy_mnist(folder):
        run_evaluate(*sources, "--dataset", "mnist", "--json", folder / "metrics.json", "--report", folder / "report")
    return folder


@pytest.fixture(scope="module")
def report(evaluated) -> dict:
    return json.loads((evaluated / "metrics.json").read_text())


class Pictures(HTMLParser):
    """Collects the files of the pictures of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.files: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.files.append(dict(attributes)["src"] or "")


def test_every_metric_of_every_source_has_a_value_or_a_reason(report):
    for metrics in (*(source["metrics"] for source in report["sources"].values()), report["real_data_baseline"]):
        assert list(metrics) == list(METRICS)
        assert all(
            np.isfinite(metric["value"]) if "value" in metric else metric["missing"] for metric in metrics.values()
        )


def test_a_run_with_an_ema_is_evaluated_with_and_without_it(report):
    assert list(report["sources"]) == ["generator.onnx", "run, EMA", "run, raw", "unconditional", "<b>300 & more.npz"]
    ema, raw = (report["sources"][f"run, {kind}"] for kind in ("EMA", "raw"))
    assert ema["metrics"]["fid"] != raw["metrics"]["fid"]
    assert ema["file_sha256"] != raw["file_sha256"]


def test_a_run_has_the_metrics_of_its_model_file(report):
    file, run = report["sources"]["generator.onnx"], report["sources"]["unconditional"]
    assert file["file_sha256"] == run["file_sha256"]
    assert file["metrics"] == run["metrics"]


def test_all_sources_are_measured_on_as_many_images_as_the_smallest_has(report):
    assert {source["images"] for source in report["sources"].values()} == {300}
    assert report["conditions"][0] == (
        "mnist: 300 images of each source, compared with 898 real images of the test split"
    )


def test_the_fid_ratio_is_the_ratio_to_real_data(report):
    for source in report["sources"].values():
        expected = source["metrics"]["fid"]["value"] / report["real_data_baseline"]["fid"]["value"]
        assert source["fid_ratio"] == pytest.approx(expected)


def test_metrics_that_need_labels_are_missing_without_labels(report):
    for name, source in report["sources"].items():
        missing = {metric for metric, value in source["metrics"].items() if "missing" in value}
        unlabelled = name in ("generator.onnx", "unconditional")
        assert missing == {"accuracy_score"} | ({"label_agreement"} if unlabelled else set())


def test_only_sources_with_a_model_have_a_cost(report):
    costs = {name: source["cost"] for name, source in report["sources"].items()}
    assert costs.pop("<b>300 & more.npz") is None
    assert all(cost["parameters"] > 0 and cost["images_per_second"] > 0 for cost in costs.values())


def test_the_page_names_every_metric_and_source(evaluated, report):
    page = (evaluated / "report" / "index.html").read_text()
    assert all(metric.title in page for metric in METRICS.values())
    assert all(name in page for name in report["sources"] if "<" not in name)


def test_every_picture_of_the_page_exists_and_can_be_decoded(evaluated):
    folder = evaluated / "report"
    pictures = Pictures((folder / "index.html").read_text()).files
    assert (
        len(pictures) == len(set(pictures)) == 1 + 2 + 5 * 5
    )  # the plot of all sources, the losses of two runs, five grids of each source
    assert {file.name for file in folder.iterdir()} == {"index.html", *pictures}
    for picture in pictures:
        with Image.open(folder / picture) as image:
            image.load()


def test_the_first_of_the_least_certain_images_is_the_one_with_a_wrong_label(evaluated):
    with Image.open(evaluated / "report" / "5-worst.png") as grid:
        first = np.asarray(grid)[1:29, 1:29]
    digits = data.load_dataset("uci-digits", evaluated)
    assert (first == digits.images[WRONG, 0].numpy()).all()


def test_html_in_the_name_of_a_file_is_escaped(evaluated):
    page = (evaluated / "report" / "index.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;300 &amp; more.npz" in page


def test_with_few_images_only_the_metrics_that_need_more_are_missing(toy, tmp_path, capsys):
    few = write_digits(tmp_path / "few.npz", 150)
    run_evaluate(few, "--metrics", "fid", "precision", "modes", "--json", tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())["sources"]["few.npz"]["metrics"]
    assert metrics["fid"] == {"missing": "needs 256 images, but there are 150"}
    assert metrics["precision"]["value"] > 0
    assert metrics["modes"]["value"] >= 1
    assert "few.npz: not measured: classifier FID (needs 256 images, but there are 150)" in capsys.readouterr().out


def test_the_reason_of_a_missing_metric_is_printed(toy, files, capsys):
    run_evaluate(files["unconditional"], "--dataset", "mnist", "--n", 50, "--metrics", "label_agreement", "modes")
    assert "generator.onnx: not measured: label agreement (needs labels)" in capsys.readouterr().out


def test_in_a_file_the_table_has_one_line_for_each_metric(toy, tmp_path, capsys):
    sources = [write_digits(tmp_path / f"digits of person {i}.npz", 50) for i in range(6)]
    run_evaluate(*sources, "--metrics", "modes")
    lines = capsys.readouterr().out.splitlines()
    (titles,) = (line for line in lines if "real data" in line and "better" in line)
    assert all(source.name in titles for source in sources)
    (row,) = (line for line in lines if METRICS["modes"].title in line)
    assert row.count("│") == titles.count("┃")


def test_files_of_the_same_name_are_distinguished_and_equal_files_have_equal_metrics(toy, files, tmp_path):
    copies = [tmp_path / name / "generator.onnx" for name in "ab"]
    for copy in copies:
        copy.parent.mkdir()
        shutil.copy(files["conditional"], copy)
    reports = []
    for name in ("first.json", "second.json"):
        run_evaluate(
            *copies, "--dataset", "mnist", "--n", 300, "--metrics", "fid", "label_agreement", "--json", tmp_path / name
        )
        reports.append(json.loads((tmp_path / name).read_text()))
    assert list(reports[0]["sources"]) == list(map(str, copies))
    metrics = [source["metrics"] for report in reports for source in report["sources"].values()]
    assert all(each == metrics[0] for each in metrics)


def test_a_model_is_measured_with_each_truncation_and_a_file_of_images_once(toy, runs, files, tmp_path):
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(export(load_checkpoint(runs["conditional"]), truncation=0.5).generator.file)
    digits = write_digits(tmp_path / "digits.npz", 300)
    sources = files["conditional"], digits, truncated
    options = ("--dataset", "mnist", "--metrics", "fid", "label_agreement", "--truncation", 1, 0.5, 1)
    run_evaluate(*sources, *options, "--json", tmp_path / "a.json", "--report", tmp_path)
    fids = {
        name: source["metrics"]["fid"]
        for name, source in json.loads((tmp_path / "a.json").read_text())["sources"].items()
    }
    assert list(fids) == [
        "generator.onnx",
        "generator.onnx, truncation 0.5",
        "digits.npz",
        "truncated.onnx",
        "truncated.onnx, truncation 0.5",
    ]
    assert fids["truncated.onnx"] == fids["generator.onnx, truncation 0.5"] != fids["generator.onnx"]
    assert "truncation.png" in Pictures((tmp_path / "index.html").read_text()).files


@pytest.mark.parametrize(
    ("truncations", "problem"), [((1, 1.5), "must be above 0 and at most 1, got 1.5"), ((), "give at least one number")]
)
def test_a_missing_or_invalid_truncation_ends_the_command_before_a_source_is_opened(
    error_of_evaluate, truncations, problem
):
    assert error_of_evaluate("missing.onnx", "--truncation", *truncations) == f"evaluate: --truncation: {problem}\n"


def test_a_model_file_is_compared_with_its_training_data_by_default(error_of_evaluate, files):
    assert "no pinned classifier for uci-digits" in error_of_evaluate(files["conditional"], "--n", 10)


def test_a_folder_of_images_must_be_given(error_of_evaluate, files, monkeypatch):
    monkeypatch.setenv("MNIST_GAN_DATA", "somewhere")
    assert "evaluate: --data-dir: give the folder of images" in error_of_evaluate(
        files["conditional"], "--dataset", "folder"
    )


def write_classes(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Writes a folder of PNGs with one subfolder for each class."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"class {label}" / f"{index}.png")
    return folder


def test_a_classifier_can_be_trained_on_twenty_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classifier, "MIN_STEPS", 40)
    digits = data.load_dataset("uci-digits", tmp_path)
    two = digits.labels < 2
    images = digits.images[two][:40, 0].numpy()
    write_classes(tmp_path / "things", images, digits.labels[two][:40].numpy())
    np.savez(tmp_path / "digits.npz", images=images)
    options = "--dataset", "folder", "--data-dir", tmp_path / "things", "--metrics", "modes", "--fit-classifier"
    run_evaluate(tmp_path / "digits.npz", *options, "--report", tmp_path / "report")
    output = capsys.readouterr().out
    assert "folder: 20 images of each source, compared with 20 real images of a random half of each class" in output
    assert "trained for this evaluation on 20 training images, accuracy 100.00% on the 20 real images" in output


@pytest.fixture
def random_classes(tmp_path, monkeypatch) -> Path:
    """A folder of digits in two random classes, which no classifier can separate."""
    monkeypatch.setattr(classifier, "MIN_STEPS", 10)
    digits = data.load_dataset("uci-digits", tmp_path)
    labels = np.random.default_rng(0).integers(0, 2, 100)
    np.savez(tmp_path / "digits.npz", images=digits.images[:50, 0])
    return write_classes(tmp_path / "things", digits.images[:100, 0].numpy(), labels)


def test_metrics_that_depend_on_a_weak_classifier_are_missing_unless_it_is_allowed(random_classes, tmp_path, capsys):
    options = (
        "--dataset",
        "folder",
        "--data-dir",
        random_classes,
        "--fit-classifier",
        "--json",
        tmp_path / "metrics.json",
    )
    with pytest.raises(SystemExit) as exit_:
        run_evaluate(tmp_path / "digits.npz", *options, "--report", tmp_path / "report")
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert re.match(
        r"evaluate: the classifier does not separate the classes: its accuracy on 50 held-out real images is "
        r"[456]\d\.\d\d% .* and more than [78]\d\.\d\d% is required.*; --allow-weak-classifier measures them\n$",
        message,
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for measured in (metrics["sources"]["digits.npz"]["metrics"], metrics["real_data_baseline"]):
        assert {name for name, value in measured.items() if "value" in value} == {"nearest"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert "needs a classifier that separates the classes" in page
    assert not {"1-best.png", "1-worst.png", "1-classes.png"} & set(Pictures(page).files)

    run_evaluate(tmp_path / "digits.npz", *options, "--metrics", "modes", "nearest", "--allow-weak-classifier")
    assert "Warning: the classifier does not separate the classes" in " ".join(capsys.readouterr().out.split())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "value" in metrics["sources"]["digits.npz"]["metrics"]["modes"]


def test_a_weak_classifier_is_no_error_for_metrics_that_do_not_need_it(random_classes, tmp_path):
    options = "--dataset", "folder", "--data-dir", random_classes, "--fit-classifier", "--metrics", "nearest"
    run_evaluate(tmp_path / "digits.npz", *options)


def test_without_arguments_the_help_is_printed(capsys):
    with pytest.raises(SystemExit) as exit_:
        run_evaluate()
    assert exit_.value.code == 0
    assert "usage: evaluate" in capsys.readouterr().out


def test_the_help_lists_every_metric(capsys):
    with pytest.raises(SystemExit):
        run_evaluate("--help")
    words = re.findall(r"\w+", capsys.readouterr().out)
    assert set(METRICS) <= set(words)


def test_real_images_of_a_folder_are_prepared_as_those_that_the_model_was_trained_on(files, monkeypatch):
    generator = Generator.open(files["unconditional"])
    card = generator.card
    generator.card = replace(
        card,
        dataset=replace(card.dataset, name="folder"),
        training=replace(card.training, config=card.training.config | {"fit": "pad", "background": "black"}),
    )
    given: list[object] = []

    def load(*arguments: object) -> None:
        given.extend(arguments)
        raise SourceError("stop here")

    monkeypatch.setattr(evaluator, "load_real_images", load)
    with pytest.raises(SourceError, match="stop here"):
        evaluator.evaluate_sources([ImageSource("a", generator)], Path("pictures"))
    assert given == ["folder", Path("pictures"), (1, 28, 28), "pad", "black"]
