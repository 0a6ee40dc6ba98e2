"""Free TCP ports for servers that tests and benchmarks start."""

import socket


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that nothing listens on.

    Another process may take the port before it is bound, so code that binds it must expect "Address already in use".
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
