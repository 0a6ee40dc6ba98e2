"""Number of images that a run trains on, computed from --epochs or measured for --minutes."""

import time

from training.batches import Batches
from training.config import Config
from training.cuda_graph import EAGER_STEPS, with_cuda_graph
from training.data import LabelledImages
from training.distributed import Group
from training.state import State
from training.step import Step

WARMUP_SECONDS = 10.0
"""About how long speed is measured before --minutes becomes a number of images."""


def images_to_train(config: Config, data: LabelledImages, group: Group) -> int:
    """Returns the number of images that --epochs or --minutes stand for, the same in every process of the group."""
    batches = Batches(data, config, group)
    if config.minutes is None:
        return max(config.batch_size, round(config.epochs * batches.epoch_images))
    rate = _images_per_second(config, data, batches, group, min(WARMUP_SECONDS, 6 * config.minutes))
    return max(config.batch_size, int(rate * 60 * config.minutes))


def _images_per_second(config: Config, data: LabelledImages, batches: Batches, group: Group, seconds: float) -> float:
    """Measures the speed of training on a state that is thrown away.

    Blocks of 1, 2, 4, ... steps run until one takes a quarter of `seconds`. A step has collective operations, so all
    processes have to take as many: rank 0 decides by its clock after each block.
    """
    state = State(config, data.info)
    step = Step(state, config, group)
    advance = with_cuda_graph(step)
    steps = 1
    while True:
        started = time.perf_counter()
        for _ in range(steps):
            step.schedule(total_images=10**9)
            advance(batches.at(state.images_seen))
            state.images_seen += config.batch_size
        state.metrics()  # waits for the device
        elapsed = time.perf_counter() - started
        # A GPU needs the first steps to choose its kernels and to capture the step.
        if group.broadcast(steps > EAGER_STEPS and elapsed >= seconds / 4, config.device):
            return group.broadcast(steps * config.batch_size / elapsed, config.device)
        steps *= 2
