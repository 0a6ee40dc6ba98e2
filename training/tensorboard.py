"""Writes a TensorBoard event file synchronously.

`torch.utils.tensorboard.SummaryWriter` writes in a thread of its own, which prints a traceback if the disk is full.
"""

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

FILE_VERSION = "brain.Event:2"
"""Format version that the first event of a TensorBoard file states."""


class EventFile:
    """One event file in the TensorBoard folder of a run. It is created when the first values are added.

    Args:
        folder: the TensorBoard folder of the run.
        purge_step: step at which a resumed run continues. The file tells TensorBoard to ignore the values that other
            files of the folder contain for this step and later ones.
    """

    def __init__(self, folder: Path, purge_step: int):
        self.path = folder / f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._pending = [
            Event(file_version=FILE_VERSION),
            Event(file_version=FILE_VERSION, step=purge_step),
            Event(session_log=SessionLog(status=SessionLog.START), step=purge_step),
        ]

    def add(self, step: int, scalars: Mapping[str, float], images: Mapping[str, tuple[bytes, int, int]]) -> None:
        """Appends the values of one step to the file.

        Args:
            scalars: values by tag.
            images: a PNG file, its width and its height in pixels, by tag.

        Raises:
            OSError: the file cannot be written. The values are kept, and the next call writes them as well.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        for name, (png, width, height) in images.items():
            image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
            values.append(Summary.Value(tag=name, image=image))
        self._pending.append(Event(summary=Summary(value=values), step=step))
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in self._pending:
            event.wall_time = event.wall_time or time.time()
            writer.write(event.SerializeToString())
        self.path.parent.mkdir(exist_ok=True)
        append(self.path, records.getvalue())
        self._pending.clear()
