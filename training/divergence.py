"""Detects that training has diverged, so that a diverged state never replaces a good checkpoint."""

import math

from models.checkpoint import find_checkpoints
from training.config import Config
from training.distributed import Group
from training.errors import RunError
from training.state import State

MAX_MEAN_LOGIT = 1e5
"""Training has diverged if the absolute value of a mean logit reaches this. Logits of a working discriminator stay far
below it."""
MIN_LOSS_SCALE = 2.0**-8
"""Training has diverged if the loss scale of fp16 falls below this. It starts at 2^16, and each step that
skips an update halves it."""


def check_divergence(state: State, config: Config, group: Group) -> None:
    """Checks the metrics since the last reset, the weights and the loss scale. Synchronizes with the device.

    This is a collective operation: it replaces the metric sums of every process by their means over the group.

    Raises:
        RunError: a metric or weight is not finite, the absolute value of a mean logit reaches `MAX_MEAN_LOGIT`, or fp16
            skips every update.
    """
    group.all_reduce_mean([state.metric_sums])
    metrics = state.metrics()
    problems = [f"{name} {value:.3g}" for name, value in metrics.items()]
    # The metrics of a step describe the weights before its update, so the updated weights need their own check.
    finite = group.all_reduce_max(float(not state.weights_are_finite())) == 0
    if not finite:
        problems.append("the weights are not finite")
    if stuck := _skips_every_update(state, config):
        problems.append("fp16 skips every step")
    logit = max(abs(metrics["logit_real"]), abs(metrics["logit_fake"]))
    if all(map(math.isfinite, metrics.values())) and logit < MAX_MEAN_LOGIT and finite and not stuck:
        return
    checkpoints = find_checkpoints(config.out)
    raise RunError(
        f"training diverged after {state.images_seen:,} images: {', '.join(problems)}; "
        + (f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "no checkpoint was saved yet")
        + f"; try a lower --lr{', a larger --gamma' if config.penalty != 'none' else ''} or --precision fp32"
    )


def _skips_every_update(state: State, config: Config) -> bool:
    """Returns whether fp16 training makes no progress, because every update overflows and is skipped.

    It makes none if the loss scale is below `MIN_LOSS_SCALE`, or if the run has ended without one update. A few skipped
    updates at the start of a run are normal.
    """
    if state.scaler.get_scale() < MIN_LOSS_SCALE:
        return True
    assert config.images is not None
    all_skipped = state.skipped_updates.item() >= state.images_seen // config.batch_size
    return all_skipped and not state.metric_steps.item() and state.images_seen >= config.images
