"""How a command ends where it cannot go on: with one line on stderr instead of a traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import InputError, MnistGanError

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as a shell reports it."""


@contextmanager
def ends_in_one_line(command: str) -> Iterator[None]:
    """Around the whole of a command. Exits with 130 after Ctrl-C, with the error's own code after one that is the
    input's, and with 1 where a file cannot be read or written, memory is short or a library is not installed.
    """
    try:
        yield
        return
    except KeyboardInterrupt:
        message, code = "interrupted", INTERRUPTED
    except MnistGanError as error:
        message, code = f"--{error}" if isinstance(error, InputError) else str(error), error.exit_code
    except OSError as error:
        if error.filename is None:  # not of a file that somebody named
            raise
        message, code = f"{error.filename}: {error.strerror}", 1
    except MemoryError as error:
        message, code = f"out of memory ({error}); ask for less at once", 1
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        extra = "cpu" if library == "onnxruntime" else "training"
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
