"""Shared by the commands: types and help texts of options, --version, and errors as one line instead of a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, arg
from tyro.constructors import PrimitiveConstructorSpec

from models.common.errors import InputError, MnistGanError
from models.common.version import version

EXTRAS = {"onnxruntime": "cpu", "pyarrow": "shards", "webdataset": "shards", "ray": "ray", "cryptography": "signing"}
"""Extra of pyproject.toml that installs an optional library. The extra `training` installs all others."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, the same that a shell reports for a process that SIGINT ended."""

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Codes of errors when standard output is written. Such an error has no file name, unlike an error of a file that the
command opened."""


def count(text: str) -> int:
    """Parses a number such as 60000, 60_000, 60k or 0.06M, rounded to an integer.

    Raises:
        ValueError: the text is not such a number.
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
"""Type of an option that is parsed by `count`."""


def image_size(text: str) -> int | tuple[int, int]:
    """Parses the size of an image in pixels: 64 for a square, 96x32 for a width of 96 and a height of 32.

    Raises:
        ValueError: the text is not such a size.
    """
    try:
        width, height = map(int, text.lower().split("x")) if "x" in text.lower() else (int(text), int(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a size such as 64 or 96x32 (width x height)") from None
    return width if width == height else (width, height)


ImageSize = Annotated[
    int | tuple[int, int],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PIXELS|WIDTHxHEIGHT",
        instance_from_str=lambda words: image_size(words[0]),
        is_instance=lambda value: isinstance(value, int | tuple),
        str_from_instance=lambda value: [str(value) if isinstance(value, int) else f"{value[0]}x{value[1]}"],
    ),
]
"""Type of an option that is parsed by `image_size`: the side of a square, or width and height."""

Version = FlagCreatePairsOff[Annotated[bool, arg(help="Print the version and exit.", help_behavior_hint=lambda _: "")]]
"""Type of the option --version of every command. It is only there for the help text: `command` handles the option."""


def optional(metavar: str, default: str) -> object:
    """Returns the annotation of an option that may be None, for the help text.

    Args:
        metavar: a word for the value of the option.
        default: what the option means while it is None.
    """
    return arg(
        metavar=metavar,
        help_behavior_hint=lambda value: f"(default: {default if value in ('None', '') else value})",
    )


@contextmanager
def command(name: str) -> Iterator[None]:
    """Context manager around a whole command. If --version is an argument of the program, prints the version and exits.
    Turns errors that a user can correct into one line on stderr and an exit code.

    The exit code is 130 after Ctrl-C, `exit_code` of an `MnistGanError`, and 1 if a file cannot be read or written,
    memory runs out or a library is not installed. If the reader of standard output has closed it, as in `train --help |
    head`, the command ends with exit code 1 and without a message.

    Args:
        name: name of the command, with which the line begins.
    """
    try:
        try:
            if "--version" in sys.argv[1:]:
                print(name, version())
                sys.exit()
            yield
        except SystemExit:  # after --help, --version, or an invalid option
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # Python's own flush at exit would print a traceback
        return
    except KeyboardInterrupt:
        message, code = "interrupted", INTERRUPTED
    except MnistGanError as error:
        message, code = f"--{error}" if isinstance(error, InputError) else str(error), error.exit_code
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            message, code = f"{error.filename}: {error.strerror}", 1
        elif error.errno in _OUTPUT_ERRORS:
            message, code = f"standard output cannot be written: {error.strerror}", 1
            _drop_output()
        else:
            raise
    except MemoryError as error:
        message, code = f"out of memory ({error}); ask for fewer images or a smaller batch", 1
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        extra = EXTRAS.get(library, "training")
        message, code = f"needs {library}, which is not installed: pip install '.[{extra}]'", 1
    print(f"{name}: {message}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def interruptible_imports(name: str, library: str = "") -> Iterator[None]:
    """Context manager around a command's slow imports. Ctrl-C ends the process immediately with exit code 130.

    Without it, libraries in C turn a KeyboardInterrupt during their import into errors of their own.

    Args:
        name: name of the command, with which the message begins.
        library: slowest library, whose loading is reported on stderr if that is a terminal. Empty: no report.
    """

    def end(*_: object) -> None:
        os.write(sys.stderr.fileno(), f"{name}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    if library and sys.stderr.isatty():
        print(f"loading {library} ...", file=sys.stderr)
    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _drop_output() -> None:
    """Redirects standard output to the null device, so that Python's flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
