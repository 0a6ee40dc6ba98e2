"""Detects that training has become much slower, for example because another program uses the CPUs."""

from training.config import Config

WINDOW_SECONDS = 5.0
"""Time in training steps over which one throughput value is measured."""
SLOWDOWN_FACTOR = 4
"""Training has slowed down if the throughput falls below the best one divided by this."""


class Throughput:
    """Measures images per second in windows of `WINDOW_SECONDS`, counting only the time of training steps."""

    def __init__(self, now: float):
        """Starts the first window at `now`, a time in seconds such as `time.perf_counter()`."""
        self.best = 0.0
        """Images per second of the fastest window so far; 0 before the first window is complete."""
        self.reported = False
        """Whether a slowdown was reported."""
        self._last_time = now
        self._images = 0
        self._seconds = 0.0

    def skip_to(self, now: float) -> None:
        """Excludes the time since the last step, which was spent on other work such as saving a checkpoint."""
        self._last_time = now

    def step(self, images: int, now: float) -> float | None:
        """Counts a training step on `images` images that ended at `now`.

        Returns:
            images per second of the window that this step completes, if they are less than a quarter of `best`. A
            slowdown is reported only once; in all other cases the result is None.
        """
        self._images += images
        self._seconds += now - self._last_time
        self._last_time = now
        if self._seconds < WINDOW_SECONDS:
            return None
        rate = self._images / self._seconds
        self._images, self._seconds = 0, 0.0
        self.best = max(self.best, rate)
        if self.reported or rate >= self.best / SLOWDOWN_FACTOR:
            return None
        self.reported = True
        return rate


def slowdown_warning(config: Config, best: float, rate: float) -> str | None:
    """Returns a warning that threads block each other, or None for a run on a GPU or on one thread.

    Args:
        best: images per second before the slowdown.
        rate: images per second now.
    """
    if config.device != "cpu" or config.threads is None or config.threads <= 1:
        return None
    return (
        f"Warning: training has slowed down from {best:,.0f} to {rate:,.0f} images/s. If other programs use the CPUs, "
        f"the {config.threads} threads of this run block each other. Interrupt the run (it saves a checkpoint) and "
        f"continue it on one thread: OMP_NUM_THREADS=1 train --resume {config.out}"
    )
