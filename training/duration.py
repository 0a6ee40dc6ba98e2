"""Number of images that a run trains on, computed from --epochs or measured for --minutes."""

import time

from training.batches import Batches
from training.config import Config
from training.cuda_graph import EAGER_STEPS, with_cuda_graph
from training.data import LabelledImages
from training.distributed import Group
from training.state import State
from training.step import Step

MAX_CALIBRATION_SECONDS = 10.0
"""Approximate maximum time for measuring the training speed, which converts --minutes into a number of images."""
CALIBRATION_SHARE = 0.1
"""Largest share of --minutes that this measurement takes."""


def images_to_train(config: Config, data: LabelledImages, group: Group) -> int:
    """Returns the number of images that --epochs or --minutes amount to, at least one batch.

    The number is the same in every process. For --minutes it first measures the training speed for up to about 10 s, so
    the number depends on the machine.
    """
    batches = Batches(data, config, group)
    if config.minutes is None:
        return max(config.batch_size, round(config.epochs * batches.epoch_images))
    seconds = 60 * config.minutes
    rate = _images_per_second(config, data, batches, group, min(MAX_CALIBRATION_SECONDS, CALIBRATION_SHARE * seconds))
    return max(config.batch_size, int(rate * seconds))


def _images_per_second(config: Config, data: LabelledImages, batches: Batches, group: Group, seconds: float) -> float:
    """Measures the speed of training on a state that is discarded afterwards.

    It runs 1, 2, 4, ... steps until such a block takes a quarter of `seconds`. The main process measures the time
    and decides when to stop, because all processes have to run the same number of steps.
    """
    state = State(config, data.info)
    step = Step(state, config, group)
    run_step = with_cuda_graph(step)
    steps = 1
    while True:
        started = time.perf_counter()
        for _ in range(steps):
            step.schedule(total_images=10**9)
            run_step(batches.at(state.images_seen))
            state.images_seen += config.batch_size
        state.metrics()  # synchronizes with the device
        elapsed = time.perf_counter() - started
        # The first steps on a GPU include the selection of kernels and the capture of the CUDA graph.
        if group.broadcast(steps > EAGER_STEPS and elapsed >= seconds / 4):
            return group.broadcast(steps * config.batch_size / elapsed)
        steps *= 2
