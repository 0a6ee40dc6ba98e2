"""Tracing of requests, exported to an OpenTelemetry collector if the settings name one."""

import asyncio
from contextlib import suppress
from typing import Any

from serving.http import bentoml_internals
from serving.http.settings import Settings

EXPORT_SECONDS = 5
"""Maximum time to export the last traces when the service stops."""


def options(settings: Settings) -> dict[str, Any]:
    """Returns the `tracing` options of a BentoML service. Without a collector they exclude all URLs."""
    if not settings.traces_endpoint:
        return {"excluded_urls": [".*"]}
    collector = {"protocol": "http", "endpoint": settings.traces_endpoint}
    return {"exporter_type": "otlp", "sample_rate": settings.traces_share, "otlp": collector}


async def export_rest(settings: Settings) -> None:
    """Exports the traces that are still buffered. BentoML does not do this before a signal ends the process."""
    if settings.traces_endpoint:
        with suppress(TimeoutError):
            provider = bentoml_internals.tracer_provider()
            await asyncio.wait_for(asyncio.to_thread(provider.shutdown), EXPORT_SECONDS)
