"""Runs tasks in processes of this machine. The processes end when this one ends, even if it is killed."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from models.common.errors import MnistGanError


class WorkerError(MnistGanError):
    """A worker process was killed."""


def run_in_processes(
    task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], processes: int
) -> Generator[tuple[int, Any]]:
    """Calls `task(*arguments[i])` for each i in parallel. Closing the generator ends the processes immediately.

    Args:
        task: function that can be pickled.
        arguments: positional arguments of each call.
        processes: number of processes.

    Yields:
        the position i and the result, in the order in which the calls finish.

    Raises:
        WorkerError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a session of onnxruntime cannot be used after a fork
    # Nothing is sent through the pipe. The kernel closes the writer when this process ends, which wakes the readers.
    reader, writer = context.Pipe(duplex=False)
    with reader, writer, ProcessPoolExecutor(processes, context, _end_with_writer, (reader,)) as pool:
        try:
            with _delay_interrupts():
                position = {pool.submit(task, *each): i for i, each in enumerate(arguments)}
            for future in as_completed(position):
                yield position[future], future.result()
        except BrokenProcessPool:
            raise WorkerError(
                "a worker process was killed, perhaps because memory ran out; run the same command again to resume"
            ) from None
        finally:
            writer.close()


def _end_with_writer(reader: Connection) -> None:
    """Starts a thread that ends this process when the other end of the pipe is closed.

    The exit code is 1, and nothing is cleaned up.
    """

    def watch() -> None:
        wait([reader])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _delay_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C (SIGINT) inside the context. Processes that are started inside ignore it permanently.

    A terminal sends the signal to all processes, and each would print a traceback. This process ends them instead.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
