"""Prepares each process that loads the service: the server process, which starts and replaces workers, and the workers,
which handle requests.
"""

import atexit
import logging
import os
import signal
import socket
from ipaddress import ip_address
from typing import Any

import bentoml

from serving.http import bentoml_internals, logs, metrics
from serving.http.settings import SETTINGS, StartupError

logger = logging.getLogger("bentoml.mnist-gan")


def prepare() -> None:
    """Prepares this process if it is a server or a worker, but not if it is another one, such as `bentoml build`.

    Raises:
        StartupError: the server cannot start.
    """
    if bentoml.server_context.worker_index is not None:
        logs.configure(SETTINGS.log_format == "json")
        _prepare_worker()
    elif (address := bentoml_internals.serve_address()) is not None:
        logs.configure(SETTINGS.log_format == "json")
        _prepare_server(*address)


def _prepare_worker() -> None:
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        metrics.allocate_files()
    else:
        bentoml_internals.keep_metrics_in_memory()
    if not SETTINGS.traces_endpoint:
        bentoml_internals.drop_tracing()


def _prepare_server(host: str, port: int) -> None:
    bentoml_internals.check_names(bentoml_internals.REQUIRED_SERVER_NAMES)
    for warning in SETTINGS.warnings():
        logger.warning(warning)
    check_port(host, port)
    folder = ""
    if SETTINGS.workers > 1:
        try:
            folder, _ = metrics.make_folder()
        except OSError as error:
            raise StartupError(f"cannot create a folder for metrics; set TMPDIR to a writable one: {error}") from None
        atexit.register(metrics.remove_folder, folder)
    bentoml_internals.share_metrics_in(folder)
    bentoml_internals.add_worker_hooks(Workers(folder).hooks())


def check_port(host: str, port: int) -> None:
    """Checks that this process can listen on the port. Otherwise BentoML would print a long traceback and keep running.

    Raises:
        StartupError: another process listens on the port, or this process lacks the permission.
    """
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return  # the host is not an IP address; BentoML reports that
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # BentoML sets it, too
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartupError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or --host"
            ) from None


class Workers:
    """Logs and counts workers that end while the server keeps running. The next worker exposes the count as a metric.

    Args:
        metrics_folder: folder of the shared metrics files; empty if there is only one worker.
    """

    def __init__(self, metrics_folder: str):
        self._metrics_folder = metrics_folder
        self._pids: dict[int, int] = {}
        """Process id of each worker, by worker number."""
        self._ended: dict[int, str] = {}
        """How each process ended ("was killed by SIGKILL"), by process id."""
        self._started = 0
        """Number of worker processes started so far."""

    def hooks(self) -> dict[str, Any]:
        """Returns the methods to call, by the name of circus's event."""
        return {"before_spawn": self.before_spawn, "after_spawn": self.after_spawn, "after_reap": self.after_reap}

    def before_spawn(self, watcher: Any, **_: Any) -> bool:
        """Passes the number of replaced workers to the process that is about to start."""
        watcher.env[metrics.WORKERS_REPLACED] = str(max(0, self._started - watcher.numprocesses + 1))
        return True

    def after_spawn(self, watcher: Any, pid: int, **_: Any) -> bool:
        """Logs that a new process replaces a worker that died."""
        self._started += 1
        number = watcher.processes[pid].wid
        previous = self._pids.get(number)
        self._pids[number] = pid
        if previous is not None:
            how = self._ended.pop(previous, "ended")
            logger.warning("worker %d died: process %d %s; process %d replaces it", number, previous, how, pid)
        return True

    def after_reap(self, watcher: Any, process_pid: int, exit_code: int | None, **_: Any) -> None:
        """Records how a process ended, and removes its gauges from the shared metrics."""
        if self._metrics_folder:
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(process_pid, self._metrics_folder)
        if watcher.is_stopping():
            return
        self._ended[process_pid] = how = _describe_exit(exit_code)
        if not watcher.respawn:  # in a container, BentoML does not replace workers
            number = next((number for number, pid in self._pids.items() if pid == process_pid), 0)
            logger.error("worker %d died: process %d %s; it is not replaced in a container", number, process_pid, how)


def _describe_exit(exit_code: int | None) -> str:
    """Describes an exit code; a negative one is the number of the signal that killed the process."""
    if exit_code is None:
        return "ended"
    return f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
