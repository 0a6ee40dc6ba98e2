"""Connections whose callers take nothing any more, which neither uvicorn nor a stop of the service would ever end."""

import os
import socket

import psutil


def cut_dead_connections(seconds: float) -> None:
    """Has the kernel end them after so long: what listens in this process hands it on to each that it accepts."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
        return
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            with socket.socket(fileno=os.dup(connection.fd)) as listening:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
