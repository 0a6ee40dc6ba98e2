"""Settings that every stage receives."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self


@dataclass(frozen=True)
class Settings:
    """Device, folders and deadline of a stage."""

    device: Literal["cuda", "cpu"]
    tiny: bool
    """Whether to run at a minimal size, which runs all code within seconds; its measurements are meaningless."""
    data_dir: Path
    """Folder of the data sets."""
    out: Path
    """Folder for result files."""
    deadline: float
    """Time at which the stage is killed, in seconds since the epoch."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**values | {"data_dir": Path(values["data_dir"]), "out": Path(values["out"])})
