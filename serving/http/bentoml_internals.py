"""All uses of BentoML's private names, and all replacements of parts of BentoML.

Private names may change with any release. So pyproject.toml bounds BentoML's version, and a missing name aborts the
start with an error that names the version. Names that only the server process needs are imported in its functions,
because they load circus, which workers do without.
"""

import os
from collections.abc import Collection
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click
from starlette.types import Receive, Scope, Send

USED = (
    ("bentoml._internal.container", "BentoMLContainer.http.host"),
    ("bentoml._internal.container", "BentoMLContainer.http.port"),
    ("bentoml._internal.container", "BentoMLContainer.metrics_client"),
    ("bentoml._internal.container", "BentoMLContainer.tracer_provider"),
    ("bentoml._internal.server.http.instruments", "RunnerTrafficMetricsMiddleware"),
    ("bentoml._internal.server.http.traffic", "TimeoutMiddleware"),
    ("bentoml._internal.server.metrics.prometheus", "PrometheusClient"),
    ("bentoml._internal.utils.analytics.usage_stats", "do_not_track.cache_clear"),
)
USED_BY_SERVER = (
    ("bentoml.serving", "create_watcher"),
    ("bentoml.serving", "ensure_prometheus_dir"),
)


def check_names(names: Collection[tuple[str, str]]) -> None:
    """
    Raises:
        ImportError: one of the names does not exist in the installed BentoML.
    """
    for module, path in names:
        try:
            found: Any = import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError):
            raise ImportError(
                f"BentoML {version('bentoml')} has no {module}.{path}, which the service replaces or uses: "
                "install a version that pyproject.toml allows"
            ) from None


check_names(USED)

from bentoml._internal.container import BentoMLContainer  # noqa: E402
from bentoml._internal.server.http import instruments, traffic  # noqa: E402
from bentoml._internal.server.metrics.prometheus import PrometheusClient  # noqa: E402
from bentoml._internal.utils.analytics import usage_stats  # noqa: E402


def stop_tracking() -> None:
    """Makes BentoML read BENTOML_DO_NOT_TRACK again, which `models` has set unless the user has.

    `bentoml serve` reports to BentoML's vendor when it starts, every 12 hours and when it ends. It reads the variable
    before it loads the service, and caches the result.
    """
    usage_stats.do_not_track.cache_clear()


def tracer_provider() -> Any:
    """Returns the provider of OpenTelemetry's tracers, to export what it still holds before the process ends.

    BentoML has no public way to it, and does not shut it down.
    """
    return BentoMLContainer.tracer_provider.get()


def drop_timeout() -> None:
    """Replaces BentoML's timeout, which leaves the work of a request running, by nothing: `deadline` has one.

    BentoML's also keeps a timer of every request until its time is over, even if the response was sent: 170,000 of them
    under load, which blocked the process for 80 ms at each garbage collection.
    """
    traffic.TimeoutMiddleware = lambda app, timeout: app  # type: ignore[assignment,misc,return-value]


def count_only(paths: Collection[str]) -> None:
    """Makes BentoML's metrics count the requests of these paths alone.

    BentoML creates series for each path that is requested, and keeps them, even for paths that do not exist.
    """

    class Counted(instruments.RunnerTrafficMetricsMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            known = scope["type"] != "http" or scope["path"] in paths
            await (super().__call__ if known else self.app)(scope, receive, send)

    instruments.RunnerTrafficMetricsMiddleware = Counted  # type: ignore[misc]


def address() -> tuple[str, int] | None:
    """Returns the host and port of the `bentoml serve` that runs in this process; None in any other process."""
    context = click.get_current_context(silent=True)
    if context is None or context.command.name != "serve" or "port" not in context.params:
        return None
    # As the command does after it has loaded the service.
    host, port = (context.params.get(name) for name in ("host", "port"))
    return host or BentoMLContainer.http.host.get(), port or BentoMLContainer.http.port.get()


def share_metrics_in(folder: str) -> None:
    """Sets the folder in which the workers of this server share their metrics; an empty text lets them share none.

    BentoML uses a folder in BENTOML_HOME, which it empties at each start, so that servers with one BENTOML_HOME delete
    each other's files.
    """
    import bentoml.serving

    bentoml.serving.ensure_prometheus_dir = lambda *_, **__: folder


def keep_metrics_in_memory() -> None:
    """Makes BentoML report metrics from this process's memory instead of shared files, which it always uses."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    from prometheus_client import disable_created_metrics

    disable_created_metrics()  # the time at which each series was created, which shared files do not have
    BentoMLContainer.metrics_client.set(PrometheusClient(multiproc=False))


def watch_workers(hooks: Any) -> None:
    """Adds hooks to circus's watcher, which starts the workers; BentoML gives it none and logs nothing about workers.

    Args:
        hooks: functions by the names that circus has for the events.
    """
    import bentoml.serving

    create = bentoml.serving.create_watcher
    ignore_failure = True  # circus logs an exception of a hook, and goes on

    def create_with_hooks(*args: Any, **options: Any) -> Any:
        return create(*args, **options, hooks={name: (hook, ignore_failure) for name, hook in hooks.items()})

    bentoml.serving.create_watcher = create_with_hooks


stop_tracking()
