"""The records of a run: a progress bar, a line and a grid of samples for each epoch, metrics.jsonl, TensorBoard, a GIF.

Training never ends because one of them cannot be written.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from models.common.files import append, write_atomically
from models.common.image_files import grid, png
from models.networks.pixels import quantize
from training.config import Config
from training.data import LabelledImages
from training.tensorboard import EventFile

GIF_FRAMES = 120
GIF_FRAME_MILLISECONDS = 120
GIF_REST_MILLISECONDS = 2_000


class RunLogger:
    """Writes a run's story; a context, so that the files are closed and the terminal is left as it was."""

    def __init__(self, run: Path, images_seen: int):
        """Goes on after `images_seen`, and tells anew what was told of later images; from 0, all of it."""
        self.run = run
        self.samples = run / "samples"
        self.metrics = run / "metrics.jsonl"
        self.images_seen = images_seen
        self.images_logged = self._forget_after(images_seen)
        """Up to which image metrics.jsonl goes."""
        self.unwritten = ""
        """Lines of metrics.jsonl that could not be written yet."""
        self.failed: set[Path] = set()
        """Files of which a failure was reported."""
        self.tensorboard = EventFile(run / "tensorboard", purge_step=images_seen + 1)
        self.console = Console(highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )

    def __enter__(self) -> Self:
        with suppress(OSError):
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.progress.stop()
        with self._tolerating(self.run / "samples.gif"):
            self._draw_gif()

    def say(self, line: str) -> None:
        with suppress(OSError):  # standard output is a file on a full disk, or a pipe that was closed
            self.console.print(line, markup=False, soft_wrap=True)

    def begin(self, config: Config, data: LabelledImages, total: int, processes: int) -> None:
        self.epoch_images = len(data) // config.batch_size * config.batch_size
        self.epochs = -(-total // self.epoch_images)
        for line in data.summary:
            self.say(line)
        self.say(
            f"{config.preset} on the {len(data):,} images of {config.dataset}: {total:,} to be seen, "
            f"in {self.epochs} epochs of {self.epoch_images // config.batch_size} batches of {config.batch_size}; "
            f"{config.device}, {config.precision}" + (f", {processes} processes" if processes > 1 else "")
        )
        if self.images_seen:
            self.say(f"going on after {self.images_seen:,} images" if self.images_seen < total else "it is finished")
        self.task = self.progress.add_task("", total=total, completed=self.images_seen, speed="")

    def advance(self, images_seen: int) -> None:
        """Moves the bar."""
        speed = self.progress.tasks[0].speed
        self.progress.update(
            self.task,
            completed=images_seen,
            description=f"epoch {images_seen // self.epoch_images + 1}/{self.epochs}",
            speed=f"{speed:,.0f} images/s" if speed else "",
        )

    def end_epoch(self, metrics: dict[str, Any], samples: Tensor) -> None:
        """Records an epoch.

        Args:
            metrics: epoch, images_seen, and what else is to be known.
            samples: float (n, channels, height, width) in [-1, 1].
        """
        penalty = ", penalty {penalty:.3f}" if metrics["penalty"] else ""
        skipped = ", {skipped_updates} updates skipped" if metrics["skipped_updates"] else ""
        self.say(
            (
                "epoch {epoch:>3}  loss of discriminator {loss_discriminator:.3f}, of generator {loss_generator:.3f}"
                + penalty
                + skipped
                + "  {seconds:.1f} s, {images_per_second:,.0f} images/s"
            ).format(**metrics)
        )
        images = quantize(samples.float()).cpu().numpy()
        # TensorBoard is given three channels of every PNG.
        image = grid(images, columns=round(len(samples) ** 0.5), padding=2).convert("RGB")
        encoded = png(image)
        with self._tolerating(self.samples):
            self.samples.mkdir(exist_ok=True)
            write_atomically(self.samples / f"epoch-{metrics['epoch']:04}.png", encoded)
        # After the sheet: an epoch without its line is told anew by a run that goes on.
        self.unwritten += json.dumps(metrics) + "\n"
        with self._tolerating(self.metrics):
            append(self.metrics, self.unwritten.encode())
            self.unwritten = ""
        with self._tolerating(self.tensorboard.path):
            self.tensorboard.add(
                metrics["images_seen"],
                {name: value for name, value in metrics.items() if name not in ("epoch", "images_seen")},
                {"samples": (encoded, image.width, image.height)},
            )

    @contextmanager
    def _tolerating(self, path: Path) -> Iterator[None]:
        """Reports the first failure to write a picture or a log, and goes on."""
        try:
            yield
        except (OSError, SyntaxError) as error:  # Pillow raises a SyntaxError for a damaged PNG
            if path not in self.failed:
                self.failed.add(path)
                reason = getattr(error, "strerror", None) or error
                self.say(f"{path} cannot be written ({reason}); training goes on without it")

    def _forget_after(self, images_seen: int) -> int:
        """Drops the lines of later images; returns how many images the last one left has seen."""
        if not self.metrics.exists():
            return 0
        lines = [line for line in self.metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["images_seen"] <= images_seen]
        write_atomically(self.metrics, "".join(kept).encode())
        return json.loads(kept[-1])["images_seen"] if kept else 0

    def _draw_gif(self) -> None:
        """samples.gif: the sheets one after another, evenly thinned where there are many."""
        sheets = sorted(self.samples.glob("epoch-*.png"))
        if not sheets:
            return
        stride = -(-len(sheets) // GIF_FRAMES)
        frames = [Image.open(path).convert("P") for path in sheets[:-1:stride] + sheets[-1:]]
        pauses = [GIF_FRAME_MILLISECONDS] * (len(frames) - 1) + [GIF_REST_MILLISECONDS]
        gif = io.BytesIO()
        frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0)
        write_atomically(self.run / "samples.gif", gif.getvalue())
