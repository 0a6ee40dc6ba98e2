"""The fast metrics that `train --evaluate-every` writes into the metrics.jsonl of a run."""

import json

import pytest

from tests.conftest import small_run
from training.errors import RunError
from training.evaluation import training_metrics
from training.evaluation.metrics import FAST


@pytest.mark.parametrize("conditional", [False, True])
def test_fast_metrics_are_written_for_the_epochs_that_are_evaluated(toy, monkeypatch, tmp_path, conditional):
    monkeypatch.setattr(training_metrics, "IMAGES", 300)
    small_run(tmp_path / "run", dataset="mnist", conditional=conditional, epochs=3, evaluate_every=2)
    epochs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = set(FAST) - (set() if conditional else {"label_agreement"})
    assert [expected & epoch.keys() for epoch in epochs] == [set(), expected, set()]
    assert not {"kid", "accuracy_score"} & epochs[1].keys()


def test_evaluating_does_not_change_the_training(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(training_metrics, "IMAGES", 300)
    losses = []
    for every in (0, 1):
        small_run(tmp_path / str(every), dataset="mnist", generator="dcgan", evaluate_every=every)
        lines = (tmp_path / str(every) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss_generator"] for line in lines])
    assert losses[0] == losses[1]


def test_a_data_set_without_a_classifier_is_rejected_before_training(tmp_path):
    with pytest.raises(RunError, match=r"^--evaluate-every: .*uci-digits has no test split"):
        small_run(tmp_path / "run", evaluate_every=1)
    assert not (tmp_path / "run").exists()


def test_a_shape_without_a_classifier_is_rejected_before_training(toy, tmp_path):
    with pytest.raises(
        RunError, match=r"^--evaluate-every: .*no pinned classifier for mnist in the shape \(3, 28, 28\)"
    ):
        small_run(tmp_path / "run", dataset="mnist", channels=3, evaluate_every=1)
    assert not (tmp_path / "run").exists()
