"""Traces of requests, exported to an OpenTelemetry collector if the settings name one."""

import asyncio
from contextlib import suppress
from typing import Any

from serving.http import bentoml_internals
from serving.http.settings import Settings

EXPORT_SECONDS = 5
"""Time for the last traces to reach the collector when the service stops."""


def options(settings: Settings) -> dict[str, Any]:
    """Returns BentoML's options for traces. Without a collector, requests create no spans, which would cost time."""
    if not settings.traces_endpoint:
        return {"excluded_urls": [".*"]}
    collector = {"protocol": "http", "endpoint": settings.traces_endpoint}
    return {"exporter_type": "otlp", "sample_rate": settings.traces_share, "otlp": collector}


async def export_rest(settings: Settings) -> None:
    """Exports the traces that are still held: a signal ends the process, which leaves no time for it later."""
    if settings.traces_endpoint:
        with suppress(TimeoutError):
            provider = bentoml_internals.tracer_provider()
            await asyncio.wait_for(asyncio.to_thread(provider.shutdown), EXPORT_SECONDS)
