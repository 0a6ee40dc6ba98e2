"""Opens a model file, runs its checks, and prints its card.

python -m models.onnx_file generator.onnx
"""

import json
import sys
from dataclasses import asdict, replace

from models.common.errors import ModelFileError
from models.onnx_file.generator import Generator


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m models.onnx_file FILE.onnx")
    try:
        card = Generator.open(sys.argv[1]).card
    except ModelFileError as error:
        sys.exit(f"models.onnx_file: {error}")
    pixels = f"... {len(card.golden.pixels):,} characters"
    print(json.dumps(asdict(replace(card, golden=replace(card.golden, pixels=pixels))), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
