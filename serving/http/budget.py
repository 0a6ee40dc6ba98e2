"""A limit on the bytes that all requests of a process hold together."""

from serving.http.errors import RequestError


class Budget:
    """Bytes that may be held at one time.

    Args:
        limit: Largest number of bytes.
        content: What is held, in the plural, for the error message.
    """

    def __init__(self, limit: int, content: str):
        self._limit = limit
        self._content = content
        self._held = 0

    def hold(self) -> "Share":
        """Returns a share of the budget, which is empty at first."""
        return Share(self)

    def _change(self, size: int) -> None:
        if size > 0 and self._held + size > self._limit:
            raise RequestError(
                429,
                f"The {self._content} of all requests hold {self._held:,} bytes now, and this one needs {size:,} more; "
                f"the limit is {self._limit:,}. Try again in a moment",
            )
        self._held += size


class Share:
    """The bytes of one request. As a context manager, it gives them back at the end of its block."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._size = 0

    def resize(self, size: int) -> None:
        """Changes the number of bytes that are held.

        Raises:
            RequestError: 429, the budget is used up. The share keeps its former size.
        """
        self._budget._change(size - self._size)
        self._size = size

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self.resize(0)
