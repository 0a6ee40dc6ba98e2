"""Command that writes the playground as a folder of static files, which runs the model in the browser.

    export-site a.onnx --out site/

docs/without-a-server.md describes the page.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.common.commands import Version, command, interruptible_imports, optional
from models.common.errors import MnistGanError
from models.common.files import write_atomically
from serving.offline.npm import NpmPackage

ONNXRUNTIME_WEB = NpmPackage(
    "onnxruntime-web",
    "1.30.0",
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61",
)
"""The runtime in the browser. Its version is independent of that of the Python package."""
RUNTIME_FILES = {
    # Some servers send a file that ends in .mjs with a media type that browsers reject for scripts.
    "package/dist/ort.wasm.bundle.min.mjs": "onnxruntime-web/ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "onnxruntime-web/ort-wasm-simd-threaded.wasm",
}
"""Path in the site of each file of the runtime that the page needs: the build for CPUs."""
PAGE = Path(__file__).parents[1] / "http" / "playground"
MODEL_FILE = "generator.onnx"
"""Path of the model file in the site."""
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; worker-src 'self' blob:"
)
"""Policy of the page, which loads nothing from other sites."""

_PLACEHOLDER = "<!-- export-site writes its policy and the name of the model file here -->"


@dataclass(frozen=True)
class Options:
    """Writes a folder that any static host serves: a page that generates images in the browser with a model file.

    The page needs https, or localhost, because browsers compute the checksum of the file only there.
    """

    file: tyro.conf.Positional[Path]
    """ONNX file that export-onnx wrote."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write. Files that it already has are replaced if the site has a file of the same name."""
    onnxruntime_web: Annotated[Path | None, optional("FILE", "npm downloads it")] = None
    """Archive of onnxruntime-web, as `npm pack` writes it, for a machine without npm or without a network."""
    version: Version = False


@command("export-site")
def main() -> None:
    options = tyro.cli(Options, prog="export-site")
    files = site_files(options.file, options.onnxruntime_web)
    write_site(files, options.out)
    megabytes = sum(map(len, files.values())) / 1e6
    print(f"{options.out}: {len(files)} files, {megabytes:.1f} MB; open index.html through a web server")


def site_files(model: Path, archive: Path | None = None) -> dict[str, bytes]:
    """Returns the content of each file of the site by its path.

    Args:
        model: the model file. It is opened with all checks.
        archive: the archive of onnxruntime-web. None downloads it with npm.

    Raises:
        MnistGanError: the model file is damaged or not allowed, or the archive is another one or cannot be downloaded.
        OSError: a file cannot be read.
    """
    with interruptible_imports("export-site"):  # imported late so that --help and mistyped options respond quickly
        from models.onnx_file.generator import Generator

    generator = Generator.open(model)
    runtime = ONNXRUNTIME_WEB.files(RUNTIME_FILES, archive)
    page = {
        f"playground/{file.relative_to(PAGE).as_posix()}": file.read_bytes()
        for file in sorted(PAGE.rglob("*"))
        if file.suffix in (".css", ".js")
    }
    return {
        "index.html": index_page(),
        **page,
        **{RUNTIME_FILES[path]: content for path, content in runtime.items()},
        "onnxruntime-web/LICENSE": _runtime_license(),
        MODEL_FILE: generator.file,
    }


def index_page() -> bytes:
    """Returns the page of the playground, which uses the model file instead of a service."""
    source = (PAGE / "index.html").read_text()
    head, placeholder, rest = source.partition(_PLACEHOLDER)
    assert placeholder, "index.html has no line for export-site"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">'
    return f'{head}{policy}\n    <meta name="model-file" content="{MODEL_FILE}">{rest}'.encode()


def write_site(files: dict[str, bytes], out: Path) -> None:
    """Writes the files of a site to a folder, index.html last, so that a folder with it is complete.

    Raises:
        MnistGanError: `out` is a file.
        OSError: a file cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise MnistGanError(f"{out}: is a file; give a folder, which export-site creates if it is missing")
    for path in sorted(files, key=lambda path: path == "index.html"):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out / path, files[path])


def _runtime_license() -> bytes:
    """Returns the licence of onnxruntime. The npm package lacks its text, the Python package has it."""
    import onnxruntime

    return (Path(onnxruntime.__file__).parent / "LICENSE").read_bytes()


if __name__ == "__main__":
    main()
