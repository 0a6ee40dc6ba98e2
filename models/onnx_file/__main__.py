"""Runs all checks of a model file and prints its card as JSON, with the golden images left out.

python -m models.onnx_file generator.onnx
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro

from models.common.commands import Version, command, interruptible_imports


@dataclass(frozen=True)
class Options:
    """Runs all checks of a model file and prints its card as JSON, with the golden images left out.

    The result of comparing the golden images is printed on stderr.
    """

    file: tyro.conf.Positional[Path]
    """An ONNX file that export-onnx wrote."""
    version: Version = False


@command("models.onnx_file")
def main() -> None:
    options = tyro.cli(Options, prog="python -m models.onnx_file")

    with interruptible_imports("models.onnx_file"):
        from models.onnx_file.generator import Generator

    generator = Generator.open(options.file)
    golden = generator.card.golden
    card = replace(generator.card, golden=replace(golden, pixels=f"... {len(golden.pixels):,} characters"))
    print(json.dumps(asdict(card), indent=2, ensure_ascii=False))
    print(generator.golden_comparison, file=sys.stderr)


if __name__ == "__main__":
    main()
