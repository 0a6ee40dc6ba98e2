"""Prepares the processes of the service when they load it: the server process, which starts and replaces workers, and
the workers, which handle requests.
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
from serving.http.settings import SETTINGS

logger = logging.getLogger("bentoml.mnist-gan")


def prepare() -> None:
    """Prepares this process; does nothing in other processes that load the service, such as `bentoml build`.

    Raises:
        StartError: the server cannot start.
    """
    if bentoml.server_context.worker_index is not None:
        logs.set_up(SETTINGS.log_format == "json")
        _prepare_worker()
    elif (address := bentoml_internals.address()) is not None:
        logs.set_up(SETTINGS.log_format == "json")
        _prepare_server(*address)


def _prepare_worker() -> None:
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        metrics.allocate_files()
    else:
        bentoml_internals.keep_metrics_in_memory()


def _prepare_server(host: str, port: int) -> None:
    bentoml_internals.check_names(bentoml_internals.USED_BY_SERVER)
    for warning in SETTINGS.warnings():
        logger.warning(warning)
    check_port(host, port)
    folder = ""
    if SETTINGS.workers > 1:
        try:
            folder, _ = metrics.make_folder()
        except OSError as error:
            raise logs.StartError(f"no folder for metrics can be made, set TMPDIR to another folder: {error}") from None
        atexit.register(metrics.remove_folder, folder)
    bentoml_internals.share_metrics_in(folder)
    bentoml_internals.watch_workers(Workers(folder).hooks())


def check_port(host: str, port: int) -> None:
    """
    Raises:
        StartError: another process listens on the port, or this one may not. BentoML would print a long traceback, and
            not end.
    """
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return  # BentoML reports it
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as BentoML does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise logs.StartError(
                f"cannot listen on {host} port {port}: {error.strerror}. Give --port or --host, or set BENTOML_PORT"
            ) from None


class Workers:
    """Reports workers that end although the server does not: by the log, and by a metric that the next worker sets."""

    def __init__(self, metrics_folder: str):
        self._metrics_folder = metrics_folder
        self._pids: dict[int, int] = {}
        """Process id of each worker, by the worker's number."""
        self._ended: dict[int, str] = {}
        """How a process ended, by its id."""
        self._started = 0

    def hooks(self) -> dict[str, Any]:
        """Functions by the events of circus."""
        return {"before_spawn": self.before_spawn, "after_spawn": self.after_spawn, "after_reap": self.after_reap}

    def before_spawn(self, watcher: Any, **_: Any) -> bool:
        watcher.env[metrics.WORKERS_REPLACED] = str(max(0, self._started - watcher.numprocesses + 1))
        return True

    def after_spawn(self, watcher: Any, pid: int, **_: Any) -> bool:
        self._started += 1
        number = watcher.processes[pid].wid
        before = self._pids.get(number)
        self._pids[number] = pid
        if before is not None:
            how = self._ended.pop(before, "ended")
            logger.warning("worker %d died: process %d %s; process %d replaces it", number, before, how, pid)
        return True

    def after_reap(self, watcher: Any, process_pid: int, exit_code: int | None, **_: Any) -> None:
        if self._metrics_folder:
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(process_pid, self._metrics_folder)  # or /metrics would keep its gauges
        if watcher.is_stopping():
            return
        self._ended[process_pid] = how = _describe(exit_code)
        if not watcher.respawn:  # in a container, which ends now
            number = next((number for number, pid in self._pids.items() if pid == process_pid), 0)
            logger.error("worker %d died: process %d %s; it is not replaced in a container", number, process_pid, how)


def _describe(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended"
    return f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
