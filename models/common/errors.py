"""Errors that a user can correct. A command prints their message, the HTTP service returns it to its client."""


class MnistGanError(ValueError):
    """Base class of errors caused by an argument, a file or the environment, not by a bug.

    A command prints the message in one line, without a traceback.
    """

    exit_code = 1
    """Exit code of a command that ends with this error."""


class InputError(MnistGanError):
    """An argument is invalid."""

    def __init__(self, field: str, message: str):
        """
        Args:
            field: name of the argument.
            message: what is wrong, with the value, and what is allowed.
        """
        super().__init__(f"{field}: {message}")
        self.field = field
        """Name of the argument."""
        self.message = message
        """Text that says what is wrong, with the value, and what is allowed."""


class ModelFileError(MnistGanError):
    """A model file is missing or damaged, or its images or its graph contradict its card."""


class GraphError(ModelFileError):
    """The graph of a model file is not allowed. The message begins with the name of the check that failed."""
