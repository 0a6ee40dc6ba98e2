"""What is wrong with an argument or a file, in a form that a command, a service and a caller can each pass on."""


class MnistGanError(ValueError):
    """The base of every error that is the input's and not the program's: a command ends with its message alone."""

    exit_code = 1
    """Of the command that it ends."""


class InputError(MnistGanError):
    """An argument that cannot be answered."""

    def __init__(self, field: str, message: str):
        super().__init__(f"{field}: {message}")
        self.field = field
        """Name of the argument."""
        self.message = message
        """What is wrong with it, with its value, and what would be right."""


class ModelFileError(MnistGanError):
    """A model file that is missing, damaged, or does not do what its card says."""


class GraphError(ModelFileError):
    """A graph that a model file must not hold. The message begins with the name of the check that found it."""
