"""Errors of training that no single module owns."""

from models.common.errors import MnistGanError


class RunError(MnistGanError):
    """A training run cannot start or cannot continue."""
