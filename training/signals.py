"""Stopping a run on Ctrl-C or SIGTERM, after the same step in every process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training.distributed import Group

STEPS_BETWEEN_SIGNAL_CHECKS = 50
"""Training steps between the exchanges in which the processes of a group learn of each other's signals."""


@dataclass
class StopRequest:
    """Records SIGINT (Ctrl-C) or SIGTERM, and lets the processes of a group agree on the step after which they stop."""

    received: signal.Signals | None = None
    """First SIGINT or SIGTERM that this process received; None if it received none."""

    def agreed(self, group: Group, steps: int) -> signal.Signals | None:
        """Returns the signal on which all processes stop after this step, or None to continue.

        A single process stops immediately. Several processes receive a signal at different steps, so they compare
        theirs every `STEPS_BETWEEN_SIGNAL_CHECKS` steps. This is a collective operation.

        Args:
            steps: number of training steps of the run so far, the same in every process.
        """
        if group.size == 1:
            return self.received
        if steps % STEPS_BETWEEN_SIGNAL_CHECKS:
            return None
        number = int(group.all_reduce_max(float(self.received or 0)))
        return signal.Signals(number) if number else None


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Records the first SIGINT or SIGTERM instead of ending the process.

    A second signal is handled as before the context, and so is any signal after it: it normally ends the process.
    """
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def record(number: int, _: object) -> None:
        request.received = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in previous:
        signal.signal(number, record)
    try:
        yield request
    finally:
        restore()
