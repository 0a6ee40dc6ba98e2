"""How a command ends where it cannot go on: with one line on stderr instead of a traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as a shell reports it."""


@contextmanager
def ends_in_one_line(command: str) -> Iterator[None]:
    """Around the whole of a command. Exits with 130 after Ctrl-C, and with 1 where a library is not installed."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        extra = "cpu" if library == "onnxruntime" else "training"
        sys.exit(f"{command}: needs {library}, which is not installed: pip install '.[{extra}]'")


@contextmanager
def importing(command: str, library: str = "") -> Iterator[None]:
    """Around a command's slow imports, the slowest of which is announced on a terminal. Ctrl-C ends it on the spot.

    Libraries in C turn a KeyboardInterrupt that meets them half loaded into errors of their own.
    """

    def end(*_: object) -> None:
        os.write(sys.stderr.fileno(), f"{command}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    if library and sys.stderr.isatty():
        print(f"loading {library} ...", file=sys.stderr)
    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
