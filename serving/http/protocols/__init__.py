"""Interfaces of other services, for clients that already speak them. Each is a module with a function `protocol`.

`routing` has what a protocol consists of: its routes, the format of its errors, and its part of the OpenAPI document.
"""

from serving.http.protocols import images, inference, openai
from serving.http.protocols.routing import Protocol
from serving.http.settings import Settings

MODULES = {"inference": inference, "images": images, "openai": openai}
"""Module of each protocol, by its name in the setting `protocols`."""


def enabled(settings: Settings) -> tuple[Protocol, ...]:
    """Returns the protocols that the settings turn on."""
    return tuple(module.protocol(settings) for name, module in MODULES.items() if name in settings.protocols)
