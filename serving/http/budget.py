"""Limits the memory that all requests of a process use together."""

from serving.http.errors import RequestError


class Budget:
    """Limits the total number of bytes of all reservations that exist at one time.

    Args:
        limit: maximum number of bytes.
        content: name of the data in the plural, for the error message: "bodies", "responses".
    """

    def __init__(self, limit: int, content: str):
        self._limit = limit
        self._content = content
        self._reserved = 0

    def reserve(self) -> "Reservation":
        """Returns a new reservation, which has 0 bytes until it is resized."""
        return Reservation(self)

    def _change(self, size: int) -> None:
        if size > 0 and self._reserved + size > self._limit:
            raise RequestError(
                429,
                f"The {self._content} of all requests use {self._reserved:,} bytes and this one needs {size:,} more; "
                f"the limit is {self._limit:,}. Try again in a moment",
            )
        self._reserved += size


class Reservation:
    """The bytes of a budget that one request has reserved. As a context manager, it releases them on exit."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._size = 0

    def resize(self, size: int) -> None:
        """Sets the number of reserved bytes.

        Raises:
            RequestError: 429 if the budget does not have enough bytes left. The reservation keeps its size.
        """
        self._budget._change(size - self._size)
        self._size = size

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.resize(0)
