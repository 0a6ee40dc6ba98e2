"""What the commands share: how large numbers are written, and how a command ends where it cannot go on, with one line
on stderr instead of a traceback.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from models.common.errors import InputError, MnistGanError

EXTRAS = {"onnxruntime": "cpu", "pyarrow": "shards", "webdataset": "shards", "ray": "ray"}
"""Of pyproject.toml: what brings a library that may be missing; all others are training's."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as a shell reports it."""

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
"""Errors of writing that name no file: those of files that a command opens itself do."""


def count(text: str) -> int:
    """Reads 60000, 60_000, 60k or 0.06M.

    Raises:
        ValueError: not such a number.
    """
    factor = {"k": 10**3, "m": 10**6}.get(text[-1:].lower(), 1)
    try:
        return round(float(text if factor == 1 else text[:-1]) * factor)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a number such as 60000, 60k or 0.06M") from None


Count = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|60k|6M",
        instance_from_str=lambda words: count(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]


@contextmanager
def ends_in_one_line(command: str) -> Iterator[None]:
    """Around the whole of a command. Exits with 130 after Ctrl-C, with the error's own code after one that is the
    input's, and with 1 where a file cannot be read or written, memory is short or a library is not installed.
    """
    try:
        yield
        sys.stdout.flush()  # at the end of the program Python would report the error in its own way
        return
    except KeyboardInterrupt:
        message, code = "interrupted", INTERRUPTED
    except MnistGanError as error:
        message, code = f"--{error}" if isinstance(error, InputError) else str(error), error.exit_code
    except OSError as error:
        if error.filename is not None:
            message, code = f"{error.filename}: {error.strerror}", 1
        elif error.errno in _OUTPUT_ERRORS:
            message, code = f"standard output cannot be written: {error.strerror}", 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        else:
            raise
    except MemoryError as error:
        message, code = f"out of memory ({error}); ask for less at once", 1
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        extra = EXTRAS.get(library, "training")
        message, code = f"needs {library}, which is not installed: pip install '.[{extra}]'", 1
    print(f"{command}: {message}", file=sys.stderr)
    sys.exit(code)


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
