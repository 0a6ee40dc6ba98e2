"""The command as a whole, on a toy MNIST: what it writes, rather than how good the digits are."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import small_run
from tests.training.evaluation.conftest import run_evaluate, toy_mnist
from training import data
from training.evaluation import classifier
from training.evaluation.metrics import METRICS


def write_digits(path: Path, n: int) -> Path:
    digits = data.load_dataset("uci-digits", path.parent)
    np.savez(path, images=digits.images[:n, 0], labels=digits.labels[:n])
    return path


@pytest.fixture(scope="module")
def judged(runs, files, tmp_path_factory) -> Iterator[Path]:
    """A folder with metrics.json and report/: of a model file, two runs, one of them averaged, and an .npz."""
    folder = tmp_path_factory.mktemp("judged")
    small_run(folder / "averaged", conditional=True, ema_half_life=1_000, images=640)
    real = write_digits(folder / "<b>300 & more.npz", 300)
    sources = files["unconditional"], folder / "averaged", runs["unconditional"], real
    with toy_mnist(folder):
        run_evaluate(*sources, "--dataset", "mnist", "--json", folder / "metrics.json", "--report", folder / "report")
    return folder


@pytest.fixture(scope="module")
def told(judged) -> dict:
    return json.loads((judged / "metrics.json").read_text())


class Pictures(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.files: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.files.append(dict(attributes)["src"] or "")


def test_every_source_has_every_figure_or_says_why_not(told):
    for metrics in (*(source["metrics"] for source in told["sources"].values()), told["noise_floor"]):
        assert list(metrics) == list(METRICS)
        assert all(
            np.isfinite(metric["value"]) if "value" in metric else metric["missing"] for metric in metrics.values()
        )


def test_a_run_with_averaged_weights_is_judged_with_and_without(told):
    assert list(told["sources"]) == [
        "generator.onnx",
        "averaged, averaged",
        "averaged, raw",
        "unconditional",
        "<b>300 & more.npz",
    ]
    averaged, raw = (told["sources"][f"averaged, {kind}"] for kind in ("averaged", "raw"))
    assert averaged["metrics"]["fid"] != raw["metrics"]["fid"]
    assert averaged["file_sha256"] != raw["file_sha256"]


def test_a_run_is_judged_as_its_file_is(told):
    file, run = told["sources"]["generator.onnx"], told["sources"]["unconditional"]
    assert file["file_sha256"] == run["file_sha256"]
    assert file["metrics"] == run["metrics"]


def test_all_are_judged_by_as_many_images_as_the_shortest_has(told):
    assert {source["images"] for source in told["sources"].values()} == {300}
    assert told["facts"][0].startswith("mnist: 300 images of each source against 898 of the test split")


def test_a_ratio_is_to_the_noise_floor(told):
    for source in told["sources"].values():
        expected = source["metrics"]["fid"]["value"] / told["noise_floor"]["fid"]["value"]
        assert source["fid_ratio"] == pytest.approx(expected)


def test_without_labels_the_figures_that_take_some_are_missing(told):
    for name, source in told["sources"].items():
        missing = {metric for metric, value in source["metrics"].items() if "missing" in value}
        unlabelled = name in ("generator.onnx", "unconditional")
        assert missing == {"accuracy_score"} | ({"label_agreement"} if unlabelled else set())


def test_only_what_a_model_drew_has_a_cost(told):
    costs = {name: source["cost"] for name, source in told["sources"].items()}
    assert costs.pop("<b>300 & more.npz") is None
    assert all(cost["parameters"] > 0 and cost["images_per_second"] > 0 for cost in costs.values())


def test_the_page_names_every_figure_and_source(judged, told):
    page = (judged / "report" / "index.html").read_text()
    assert all(metric.title in page for metric in METRICS.values())
    assert all(name in page for name in told["sources"] if "<" not in name)


def test_every_picture_of_the_page_can_be_seen(judged):
    folder = judged / "report"
    pictures = Pictures((folder / "index.html").read_text()).files
    assert len(pictures) == len(set(pictures)) == 1 + 2 + 5 * 5  # curves, two histories, five of each source
    assert {file.name for file in folder.iterdir()} == {"index.html", *pictures}
    for picture in pictures:
        with Image.open(folder / picture) as image:
            image.load()


def test_html_in_the_name_of_a_file_is_only_text(judged):
    page = (judged / "report" / "index.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;300 &amp; more.npz" in page


def test_too_few_images_cost_only_the_figures_that_need_more(toy, tmp_path, capsys):
    few = write_digits(tmp_path / "few.npz", 150)
    run_evaluate(few, "--metrics", "fid", "precision", "modes", "--json", tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())["sources"]["few.npz"]["metrics"]
    assert metrics["fid"] == {"missing": "needs 256 images, there are 150"}
    assert metrics["precision"]["value"] > 0
    assert metrics["modes"]["value"] >= 1
    assert "few.npz: no classifier FID: it needs 256 images, there are 150" in capsys.readouterr().out


def test_an_unlabelled_source_is_told_what_it_lacks(toy, files, capsys):
    run_evaluate(files["unconditional"], "--dataset", "mnist", "--n", 50, "--metrics", "label_agreement", "modes")
    assert "generator.onnx: no label agreement: it needs labels" in capsys.readouterr().out


def test_files_of_one_name_are_told_apart_and_the_same_file_has_the_same_figures(toy, files, tmp_path):
    copies = [tmp_path / name / "generator.onnx" for name in "ab"]
    for copy in copies:
        copy.parent.mkdir()
        shutil.copy(files["conditional"], copy)
    told = []
    for name in ("first.json", "second.json"):
        run_evaluate(
            *copies, "--dataset", "mnist", "--n", 300, "--metrics", "fid", "label_agreement", "--json", tmp_path / name
        )
        told.append(json.loads((tmp_path / name).read_text()))
    assert list(told[0]["sources"]) == list(map(str, copies))
    metrics = [source["metrics"] for report in told for source in report["sources"].values()]
    assert all(other == metrics[0] for other in metrics)


def test_a_model_file_is_judged_by_the_data_that_it_learned_from(refusal, files):
    assert "no pinned classifier of uci-digits" in refusal(files["conditional"], "--n", 10)


def test_a_folder_of_images_has_no_default(refusal, files, monkeypatch):
    monkeypatch.setenv("MNIST_GAN_DATA", "somewhere")
    assert "evaluate: --data-dir: give the folder of images" in refusal(files["conditional"], "--dataset", "folder")


def write_classes(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """A folder of PNGs with one subfolder for each class."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"class {label}" / f"{index}.png")
    return folder


def test_a_classifier_can_be_trained_for_a_handful_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classifier, "MIN_STEPS", 40)
    digits = data.load_dataset("uci-digits", tmp_path)
    two = digits.labels < 2
    images = digits.images[two][:40, 0].numpy()
    write_classes(tmp_path / "things", images, digits.labels[two][:40].numpy())
    np.savez(tmp_path / "digits.npz", images=images)
    options = "--dataset", "folder", "--data-dir", tmp_path / "things", "--metrics", "modes", "--fit-classifier"
    run_evaluate(tmp_path / "digits.npz", *options, "--report", tmp_path / "report")
    told = capsys.readouterr().out
    assert "folder: 20 images of each source against 20 that it may have learned from" in told
    assert "classifier: trained just now on 20 other images, right about 100.00% of the 20 images" in told


@pytest.fixture
def mixed_up(tmp_path, monkeypatch) -> Path:
    """A folder of digits whose classes are drawn at random."""
    monkeypatch.setattr(classifier, "MIN_STEPS", 10)
    digits = data.load_dataset("uci-digits", tmp_path)
    labels = np.random.default_rng(0).integers(0, 2, 100)
    np.savez(tmp_path / "digits.npz", images=digits.images[:50, 0])
    return write_classes(tmp_path / "things", digits.images[:100, 0].numpy(), labels)


def test_a_classifier_at_chance_gives_no_metrics_that_depend_on_it(mixed_up, tmp_path, capsys):
    options = "--dataset", "folder", "--data-dir", mixed_up, "--fit-classifier", "--json", tmp_path / "metrics.json"
    with pytest.raises(SystemExit) as exit_:
        run_evaluate(tmp_path / "digits.npz", *options, "--report", tmp_path / "report")
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert re.match(
        r"evaluate: the classifier does not separate the classes: it is right about [456]\d\.\d\d% of 50 held-out "
        r"real images .* and more than [78]\d\.\d\d% is required.*; --allow-weak-classifier measures them\n$",
        message,
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for measured in (metrics["sources"]["digits.npz"]["metrics"], metrics["noise_floor"]):
        assert {name for name, value in measured.items() if "value" in value} == {"nearest"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert "needs a classifier that separates the classes" in page
    assert not {"1-best.png", "1-worst.png", "1-classes.png"} & set(Pictures(page).files)

    run_evaluate(tmp_path / "digits.npz", *options, "--metrics", "modes", "nearest", "--allow-weak-classifier")
    assert "Warning: the classifier does not separate the classes" in " ".join(capsys.readouterr().out.split())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "value" in metrics["sources"]["digits.npz"]["metrics"]["modes"]


def test_metrics_that_need_no_classifier_are_measured_in_spite_of_a_weak_one(mixed_up, tmp_path):
    options = "--dataset", "folder", "--data-dir", mixed_up, "--fit-classifier", "--metrics", "nearest"
    run_evaluate(tmp_path / "digits.npz", *options)
