"""What a run tells: a progress bar, a line and a sheet of samples an epoch, metrics.jsonl, TensorBoard."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid, save_image


class Journal:
    """Writes a run's story; a context, so that the files are closed and the terminal is left as it was."""

    def __init__(self, run: Path):
        self.samples = run / "samples"
        self.samples.mkdir()
        self.metrics = (run / "metrics.jsonl").open("w")
        self.tensorboard = SummaryWriter(run / "tensorboard")
        self.console = Console(highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches,"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()
        self.metrics.close()
        self.tensorboard.close()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    def start_epoch(self, epoch: int, epochs: int, batches: int) -> Callable[[], None]:
        """Shows a bar for the epoch, and returns what moves it on by a batch."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        task = self.progress.add_task(f"epoch {epoch}/{epochs}", total=batches)
        return lambda: self.progress.advance(task)

    def end_epoch(self, figures: dict[str, Any], samples: Tensor) -> None:
        """Records an epoch.

        Args:
            figures: epoch, images_seen, loss_discriminator, loss_generator, seconds, images_per_second.
            samples: float (n, channels, height, width) in [-1, 1].
        """
        self.say(
            "epoch {epoch:>3}  loss of discriminator {loss_discriminator:.3f}, of generator {loss_generator:.3f}  "
            "{seconds:.1f} s, {images_per_second:,.0f} images/s".format(**figures)
        )
        self.metrics.write(json.dumps(figures) + "\n")
        self.metrics.flush()
        for name, value in figures.items():
            if name not in ("epoch", "images_seen"):
                self.tensorboard.add_scalar(name, value, figures["images_seen"])

        sheet = make_grid(samples.float().cpu(), nrow=round(len(samples) ** 0.5), normalize=True, value_range=(-1, 1))
        save_image(sheet, self.samples / f"epoch-{figures['epoch']:04}.png")
        self.tensorboard.add_image("samples", sheet, figures["images_seen"])
        self.tensorboard.flush()


def loss_figures(losses: Tensor) -> dict[str, float]:
    """Names the means of what `Step` returned. losses: (steps, 2)."""
    discriminator, generator = losses.double().mean(0).tolist()
    return {"loss_discriminator": discriminator, "loss_generator": generator}
