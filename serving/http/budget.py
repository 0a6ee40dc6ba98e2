"""Limits the memory that all requests of a process use together."""

from serving.http.errors import RequestError


class Budget:
    """Limits the total number of bytes of all shares that are in use at one time.

    Args:
        limit: Maximum number of bytes.
        content: Name of the data in the plural, for the error message: "bodies", "responses".
    """

    def __init__(self, limit: int, content: str):
        self._limit = limit
        self._content = content
        self._held = 0

    def hold(self) -> "Share":
        """Returns a new share of the budget, which has 0 bytes until it is resized."""
        return Share(self)

    def _change(self, size: int) -> None:
        if size > 0 and self._held + size > self._limit:
            raise RequestError(
                429,
                f"The {self._content} of all requests use {self._held:,} bytes and this one needs {size:,} more; the "
                f"limit is {self._limit:,}. Try again in a moment",
            )
        self._held += size


class Share:
    """The bytes of one request that count towards a budget. As a context manager, it releases them on exit."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._size = 0

    def resize(self, size: int) -> None:
        """Sets the number of bytes of this share.

        Raises:
            RequestError: 429 if the budget does not have enough bytes left. The share keeps its previous size.
        """
        self._budget._change(size - self._size)
        self._size = size

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self.resize(0)
