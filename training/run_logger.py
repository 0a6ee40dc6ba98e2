"""Logs of a run: progress bar, a line and a sample grid per epoch, metrics.jsonl, TensorBoard and samples.gif.

After the start, a log that cannot be written is reported once and does not stop the training.
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

MAX_GIF_FRAMES = 120
GIF_FRAME_MILLISECONDS = 120
GIF_LAST_FRAME_MILLISECONDS = 2_000


class RunLogger:
    """Writes the logs of a run. Use it as a context manager, which shows the progress bar and writes samples.gif."""

    def __init__(self, run: Path, images_seen: int):
        """Opens the logs of the run in folder `run`, which continues after `images_seen` images.

        Entries of later images are removed, because the run will log them again. 0 removes all entries.
        """
        self.run = run
        self.samples = run / "samples"
        self.metrics = run / "metrics.jsonl"
        self.images_seen = images_seen
        self.last_logged_images = self._drop_entries_after(images_seen)
        """Value of images_seen in the last entry of metrics.jsonl; 0 if it has no entry."""
        self.unwritten = ""
        """Lines for metrics.jsonl that could not be written yet."""
        self.failed: set[Path] = set()
        """Files for which a failure has been reported."""
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
        with self._tolerate_failure(self.run / "samples.gif"):
            self._write_gif()

    def print_line(self, line: str) -> None:
        """Prints a line above the progress bar. Ignores a standard output that is closed or on a full disk."""
        with suppress(OSError):
            self.console.print(line, markup=False, soft_wrap=True)

    def start(self, config: Config, data: LabelledImages, epoch_images: int, total_images: int, processes: int) -> None:
        """Prints a summary of the run and starts the progress bar.

        Args:
            epoch_images: images of one epoch, a multiple of the batch size.
            total_images: images of the whole run, those before a resume included.
            processes: number of processes that train the run.
        """
        self.epoch_images = epoch_images
        self.epochs = -(-total_images // epoch_images)
        for line in data.summary:
            self.print_line(line)
        self.print_line(
            f"training preset {config.preset} on {config.dataset} ({len(data):,} images) for {total_images:,} images: "
            f"{self.epochs} epochs of {epoch_images // config.batch_size} batches of {config.batch_size}; "
            f"{config.device}, {config.precision}" + (f", {processes} processes" if processes > 1 else "")
        )
        if self.images_seen >= total_images:
            self.print_line("the run is already complete")
        elif self.images_seen:
            self.print_line(f"resuming after {self.images_seen:,} images")
        self.task = self.progress.add_task("", total=total_images, completed=self.images_seen, speed="")

    def update_progress(self, images_seen: int) -> None:
        """Updates the progress bar."""
        speed = self.progress.tasks[0].speed
        self.progress.update(
            self.task,
            completed=images_seen,
            description=f"epoch {images_seen // self.epoch_images + 1}/{self.epochs}",
            speed=f"{speed:,.0f} images/s" if speed else "",
        )

    def log_epoch(self, metrics: dict[str, Any], samples: Tensor) -> None:
        """Logs the metrics and the sample grid of an epoch.

        Args:
            metrics: the entry for metrics.jsonl. Entries other than epoch and images_seen also go to TensorBoard.
            samples: float (n, channels, height, width) in [-1, 1], on any device.
        """
        penalty = ", penalty {penalty:.3f}" if metrics["penalty"] else ""
        skipped = ", {skipped_updates} updates skipped" if metrics["skipped_updates"] else ""
        self.print_line(
            (
                "epoch {epoch:>3}  discriminator loss {loss_discriminator:.3f}, generator loss {loss_generator:.3f}"
                + penalty
                + skipped
                + "  {seconds:.1f} s, {images_per_second:,.0f} images/s"
            ).format(**metrics)
        )
        images = quantize(samples.float()).cpu().numpy()
        # `EventFile` declares every PNG as RGB.
        image = grid(images, columns=round(len(samples) ** 0.5), padding=2).convert("RGB")
        encoded = png(image)
        with self._tolerate_failure(self.samples):
            self.samples.mkdir(exist_ok=True)
            write_atomically(self.samples / f"epoch-{metrics['epoch']:04}.png", encoded)
        # The grid is written first: a resumed run logs an epoch again if metrics.jsonl has no entry of it.
        self.unwritten += json.dumps(metrics) + "\n"
        with self._tolerate_failure(self.metrics):
            append(self.metrics, self.unwritten.encode())
            self.unwritten = ""
        with self._tolerate_failure(self.tensorboard.path):
            self.tensorboard.add(
                metrics["images_seen"],
                {name: value for name, value in metrics.items() if name not in ("epoch", "images_seen")},
                {"samples": (encoded, image.width, image.height)},
            )

    @contextmanager
    def _tolerate_failure(self, path: Path) -> Iterator[None]:
        """Suppresses an error of writing a log, and reports the first one of each file."""
        try:
            yield
        except (OSError, SyntaxError) as error:  # Pillow raises a SyntaxError for a damaged PNG
            if path not in self.failed:
                self.failed.add(path)
                reason = getattr(error, "strerror", None) or error
                self.print_line(f"{path} cannot be written ({reason}); this does not stop the run")

    def _drop_entries_after(self, images_seen: int) -> int:
        """Removes later and incomplete entries from metrics.jsonl; returns images_seen of the last entry left, or 0."""
        if not self.metrics.exists():
            return 0
        lines = [line for line in self.metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["images_seen"] <= images_seen]
        write_atomically(self.metrics, "".join(kept).encode())
        return json.loads(kept[-1])["images_seen"] if kept else 0

    def _write_gif(self) -> None:
        """Writes samples.gif: the grids of all epochs, or of every k-th epoch and the last one if there are many."""
        grids = sorted(self.samples.glob("epoch-*.png"))
        if not grids:
            return
        stride = -(-len(grids) // MAX_GIF_FRAMES)
        frames = [Image.open(path).convert("P") for path in grids[:-1:stride] + grids[-1:]]
        durations = [GIF_FRAME_MILLISECONDS] * (len(frames) - 1) + [GIF_LAST_FRAME_MILLISECONDS]
        gif = io.BytesIO()
        frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
        write_atomically(self.run / "samples.gif", gif.getvalue())
