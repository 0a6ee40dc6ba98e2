"""All uses of BentoML's private names, and all replacements of parts of BentoML.

Private names may change with any release. Therefore pyproject.toml bounds BentoML's version, and a missing name aborts
start-up with an error that names the version. Names that only the server process needs are imported inside functions,
because they load circus, which workers do not need.
"""

import os
from collections.abc import Callable, Collection
from copy import copy
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click
from starlette.types import Receive, Scope, Send

from serving.http.metrics import remember_labels

REQUIRED_NAMES = (
    ("bentoml._internal.container", "BentoMLContainer.http.host"),
    ("bentoml._internal.container", "BentoMLContainer.http.port"),
    ("bentoml._internal.container", "BentoMLContainer.metrics_client"),
    ("bentoml._internal.container", "BentoMLContainer.tracer_provider"),
    ("bentoml._internal.server.http.instruments", "RunnerTrafficMetricsMiddleware._setup"),
    ("bentoml._internal.server.http.traffic", "TimeoutMiddleware"),
    ("bentoml._internal.server.metrics.prometheus", "PrometheusClient"),
    ("bentoml._internal.utils.analytics.usage_stats", "do_not_track.cache_clear"),
)
"""Modules and names that every process uses."""
REQUIRED_SERVER_NAMES = (
    ("bentoml.serving", "create_watcher"),
    ("bentoml.serving", "ensure_prometheus_dir"),
)
"""Modules and names that only the server process uses."""


def check_names(names: Collection[tuple[str, str]]) -> None:
    """Checks that the installed BentoML has these names.

    Args:
        names: pairs of a module and a name in it, with dots between nested names.

    Raises:
        ImportError: one of the names does not exist.
    """
    for module, path in names:
        try:
            found: Any = import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError):
            raise ImportError(
                f"BentoML {version('bentoml')} has no {module}.{path}, which the service needs; "
                "install a version that pyproject.toml allows"
            ) from None


check_names(REQUIRED_NAMES)

from bentoml._internal.container import BentoMLContainer  # noqa: E402
from bentoml._internal.server.http import instruments, traffic  # noqa: E402
from bentoml._internal.server.metrics.prometheus import PrometheusClient  # noqa: E402
from bentoml._internal.utils.analytics import usage_stats  # noqa: E402


def disable_usage_reports() -> None:
    """Makes BentoML read BENTOML_DO_NOT_TRACK again. The package `models` sets it unless the user has set it.

    `bentoml serve` reports to BentoML's vendor when it starts, every 12 hours and when it ends. It reads and caches the
    variable before it loads the service.
    """
    usage_stats.do_not_track.cache_clear()


def tracer_provider() -> Any:
    """Returns BentoML's OpenTelemetry TracerProvider.

    BentoML does not shut it down, so traces that are still buffered would be lost.
    """
    return BentoMLContainer.tracer_provider.get()


def drop_timeout() -> None:
    """Removes BentoML's timeout, because `serving.http.deadline` has one that also cancels the work of the request.

    BentoML's timeout keeps a timer for each request until it expires, even after the response. Under load these were
    170,000 timers, which blocked the process for 80 ms at each garbage collection.
    """
    traffic.TimeoutMiddleware = lambda app, timeout: app  # type: ignore[assignment,misc,return-value]


def drop_tracing() -> None:
    """Removes the middleware that creates a span for each request. Without a collector nobody receives the spans."""
    from opentelemetry.instrumentation import asgi

    asgi.OpenTelemetryMiddleware = lambda app, **_: app  # type: ignore[assignment,misc]


def count_only(paths: Collection[str], template_of: Callable[[str], str | None]) -> None:
    """Makes BentoML's request metrics ignore all paths except these and those that have a template.

    BentoML creates a series for each requested path and keeps it, even if the path does not exist, so that clients
    could fill the memory.

    Args:
        paths: paths to count.
        template_of: returns the label under which to count another path, or None if it is not counted.
    """

    class LimitedMetricsMiddleware(instruments.RunnerTrafficMetricsMiddleware):
        def _setup(self, *args: Any, **options: Any) -> None:
            super()._setup(*args, **options)
            for name, metric in vars(self).items():
                if name.startswith("metrics_") and hasattr(metric, "labels"):
                    remember_labels(metric)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in paths:
                await super().__call__(scope, receive, send)
            elif (template := template_of(scope["path"])) is None:
                await self.app(scope, receive, send)
            else:
                await self._count_as(template, scope, receive, send)

        async def _count_as(self, label: str, scope: Scope, receive: Receive, send: Send) -> None:
            if not self._is_setup:
                self._setup()
            counter = copy(self)
            # BentoML's middleware takes the label from the path of the scope; the application gets the real path.
            counter.app = lambda _, receive, send: self.app(scope, receive, send)
            await super(LimitedMetricsMiddleware, counter).__call__({**scope, "path": label}, receive, send)

    instruments.RunnerTrafficMetricsMiddleware = LimitedMetricsMiddleware  # type: ignore[misc]


def serve_address() -> tuple[str, int] | None:
    """Returns host and port if this process runs `bentoml serve`, otherwise None."""
    context = click.get_current_context(silent=True)
    if context is None or context.command.name != "serve" or "port" not in context.params:
        return None
    # `bentoml serve` computes them in the same way after it has loaded the service.
    host, port = (context.params.get(name) for name in ("host", "port"))
    return host or BentoMLContainer.http.host.get(), port or BentoMLContainer.http.port.get()


def share_metrics_in(folder: str) -> None:
    """Sets the folder in which the workers of this server share their metrics. An empty string disables sharing.

    By default BentoML uses a folder in BENTOML_HOME, which it empties at each start, so that servers with the same
    BENTOML_HOME would delete each other's files.
    """
    import bentoml.serving

    bentoml.serving.ensure_prometheus_dir = lambda *_, **__: folder


def keep_metrics_in_memory() -> None:
    """Makes BentoML keep metrics in the memory of this process. By default it uses shared files even for one worker."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    from prometheus_client import disable_created_metrics

    disable_created_metrics()  # series with creation times, which shared files do not have
    BentoMLContainer.metrics_client.set(PrometheusClient(multiproc=False))


def add_worker_hooks(hooks: Any) -> None:
    """Adds hooks to the circus watcher that starts the workers. BentoML itself does not log when a worker dies.

    Args:
        hooks: functions by the name of circus's event, such as `after_spawn`.
    """
    import bentoml.serving

    create = bentoml.serving.create_watcher
    ignore_failure = True  # circus logs an exception of a hook and continues

    def create_with_hooks(*args: Any, **options: Any) -> Any:
        return create(*args, **options, hooks={name: (hook, ignore_failure) for name, hook in hooks.items()})

    bentoml.serving.create_watcher = create_with_hooks


disable_usage_reports()
