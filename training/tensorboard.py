"""A log for TensorBoard, written without TensorBoard's own thread: that one prints a traceback where a disk is full."""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from models.common.files import append

VERSION = "brain.Event:2"


class EventFile:
    """One file of events in the folder of a run."""

    def __init__(self, folder: Path, purge_step: int):
        """Nothing is written before the first event. TensorBoard then drops what other files of the folder hold of
        `purge_step` and later steps.
        """
        self.path = folder / f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._pending = [
            Event(file_version=VERSION),
            Event(file_version=VERSION, step=purge_step),
            Event(session_log=SessionLog(status=SessionLog.START), step=purge_step),
        ]

    def add(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, tuple[bytes, int, int]]) -> None:
        """Writes the values of one step.

        Args:
            pictures: by name, a PNG with its width and its height.

        Raises:
            OSError: the file cannot be written; the values are kept and written together with the next ones.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        for name, (png, width, height) in pictures.items():
            picture = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
            values.append(Summary.Value(tag=name, image=picture))
        self._pending.append(Event(summary=Summary(value=values), step=step))
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in self._pending:
            event.wall_time = event.wall_time or time.time()
            writer.write(event.SerializeToString())
        self.path.parent.mkdir(exist_ok=True)
        append(self.path, records.getvalue())
        self._pending.clear()
