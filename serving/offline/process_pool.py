"""Tasks in processes of this machine, which end when this process ends, however it does."""

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
    """A worker process that was killed."""


def run_in_processes(
    task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], processes: int
) -> Generator[tuple[int, Any]]:
    """Calls `task` with each of the arguments. Closing the iterator ends the processes, whatever they are doing.

    Yields:
        The position of the arguments and the result, in the order in which the results arrive.

    Raises:
        WorkerError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a session of onnxruntime does not survive a fork
    # Nothing is ever sent: the kernel closes the writer when this process ends, which wakes up the readers.
    reader, writer = context.Pipe(duplex=False)
    with reader, writer, ProcessPoolExecutor(processes, context, _end_with_writer, (reader,)) as pool:
        try:
            with _interrupts_delayed():
                position = {pool.submit(task, *each): i for i, each in enumerate(arguments)}
            for future in as_completed(position):
                yield position[future], future.result()
        except BrokenProcessPool:
            raise WorkerError(
                "a worker process was killed, perhaps because memory is short; the same command again goes on"
            ) from None
        finally:
            writer.close()


def _end_with_writer(reader: Connection) -> None:
    """Ends this process as soon as the other end of a pipe is closed."""

    def watch() -> None:
        wait([reader])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Delays Ctrl-C to the end of the context. Processes that are started inside never receive it.

    Otherwise each of them would print a traceback, since a terminal sends the signal to all of them. This process ends
    them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
