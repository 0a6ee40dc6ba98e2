"""Detects that training has become much slower than it was, as when another program takes over the CPUs."""

WINDOW_SECONDS = 5.0
SLOWDOWN = 4


class Throughput:
    """Images per second of the training steps, over windows of `WINDOW_SECONDS`. Other work does not count."""

    def __init__(self, now: float):
        self.best = 0.0
        """Images per second of the fastest window so far."""
        self.warned = False
        self._since = now
        self._images = 0
        self._seconds = 0.0

    def skip_to(self, now: float) -> None:
        """Leaves out the time since the last step, which went into other work."""
        self._since = now

    def step(self, images: int, now: float) -> float | None:
        """Counts a step that ended `now`.

        Returns:
            Images per second of the window that this step completes, if they have fallen below a quarter of the best;
            only the first time.
        """
        self._images += images
        self._seconds += now - self._since
        self._since = now
        if self._seconds < WINDOW_SECONDS:
            return None
        rate = self._images / self._seconds
        self._images, self._seconds = 0, 0.0
        self.best = max(self.best, rate)
        if self.warned or rate >= self.best / SLOWDOWN:
            return None
        self.warned = True
        return rate
