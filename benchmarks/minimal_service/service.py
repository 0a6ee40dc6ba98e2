"""The smallest BentoML service: the part of the start time and the memory that is BentoML's own."""

import bentoml


@bentoml.service
class Minimal:
    """Returns a number."""

    @bentoml.api
    def one(self) -> int:
        """Returns 1."""
        return 1
