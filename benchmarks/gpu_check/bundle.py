"""Collects the files that a GPU machine without a network lacks: a few wheels, and MNIST.

    make gpu-bundle            # writes gpu-bundle/, which `make gpu-check` finds there

The wheels are for Python 3.12 on x86-64 Linux, in the versions of requirements.lock.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu_check.environment import BUNDLE
from models.common.errors import MnistGanError
from training.data import load_dataset
from training.data_dir import default_data_dir

ROOT = Path(__file__).parents[2]
PACKAGES = ("tyro", "pydantic")
"""Packages that such a machine lacks; pip adds their dependencies."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
RAW = Path("MNIST", "raw")
MAX_BYTES = 50 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser("gpu_check.bundle", description="Collects the wheels and the data of gpu-check.")
    parser.add_argument("--out", type=Path, default=BUNDLE)
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    _download_wheels(options.out / "wheels")
    try:
        for split in ("train", "test"):
            load_dataset("mnist", options.data_dir, split=split)  # downloads what is missing
        _compress(options.data_dir / RAW, options.out / "data" / RAW)
    except MnistGanError as error:
        print(
            f"gpu-bundle: MNIST is missing, which the stages speed, quality and profile need: {error}", file=sys.stderr
        )
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    if size > MAX_BYTES:
        sys.exit(f"gpu-bundle: {options.out} has {size:,} bytes, more than the maximum of {MAX_BYTES:,}")
    print(
        f"{options.out}: {size / 2**20:.1f} MiB. Copy it together with the repository; `make gpu-check` uses it there."
    )


def _download_wheels(folder: Path) -> None:
    pins = [line.split()[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pins))  # without hashes: pip checks either all packages or none
        constraints.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", folder]
        command += ["--python-version", "3.12", "--implementation", "cp", "--constraint", constraints.name]
        command += [f"--platform={platform}" for platform in PLATFORMS]
        subprocess.run([*command, *PACKAGES], check=True)


def _compress(raw: Path, out: Path) -> None:
    out.mkdir(parents=True)
    for file in sorted(raw.glob("*-ubyte")):
        (out / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))


if __name__ == "__main__":
    main()
