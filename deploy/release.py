"""Writes the files of a release: a Bento and a page without a server, both with the pretrained generator, and an SBOM
(CycloneDX) of each image.

    SOURCE_DATE_EPOCH=SECONDS python deploy/release.py FOLDER VERSION       # or make release

The same commit gives the same bytes: every time stamp is $SOURCE_DATE_EPOCH, in seconds since 1970.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
IMAGES = ("cpu", "cuda")


def main(dist: Path, version: str) -> None:
    with TemporaryDirectory() as home:
        write_bento(Path(home), version, dist / f"mnist-gan-{version}.bento")
    write_site(dist / f"mnist-gan-{version}-site.tar.xz")
    for image in IMAGES:
        bill = bill_of_materials(ROOT / f"serving/http/requirements-{image}.txt")
        (dist / f"mnist-gan-{version}-{image}.cdx.json").write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")


def write_bento(home: Path, version: str, out: Path) -> None:
    """Builds the Bento and packs it into one file that `bentoml import` reads.

    Args:
        home: An empty folder for the BentoML store. Without a model in the store the pretrained generator is packed.
        version: The version of the Bento.
        out: The file to write. `bentoml export` is not used, because it would store the time at which it runs.
    """
    environment = {"BENTOML_HOME": str(home), "MNIST_GAN_IMAGE": "cpu"}
    run(BIN / "bentoml", "build", "--version", version, **environment)
    folder = home / "bentos/mnist-gan" / version
    time = f"creation_time: '{datetime.fromtimestamp(EPOCH, UTC).isoformat(timespec='microseconds')}'"
    description, count = re.subn(
        "^creation_time: .*$", time, (folder / "bento.yaml").read_text(), count=1, flags=re.MULTILINE
    )
    assert count == 1, "bento.yaml has no creation_time"
    (folder / "bento.yaml").write_text(description)
    pack(folder, out)


def write_site(out: Path) -> None:
    """Writes the archive of the page without a server, with the pretrained generator.

    Args:
        out: The archive to write. It contains one folder with the name of the archive.
    """
    with TemporaryDirectory() as parent:
        site = Path(parent) / out.name.removesuffix(".tar.xz")
        run(BIN / "export-site", "models/pretrained/mnist.onnx", "--out", site)
        pack(site, out, prefix=Path(site.name))


def pack(folder: Path, out: Path, prefix: Path = Path()) -> None:
    """Packs a folder into an archive.

    Args:
        folder: The folder to pack.
        out: The archive to write.
        prefix: The path of the folder in the archive.
    """
    with tarfile.open(out, "w:xz", format=tarfile.PAX_FORMAT) as archive:
        for path in [folder, *sorted(folder.rglob("*"))]:
            archive.add(path, prefix / path.relative_to(folder), recursive=False, filter=normalise)


def normalise(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Removes the time, the owner and the umask of this machine from a member of the archive."""
    member.mtime, member.uid, member.gid, member.uname, member.gname = EPOCH, 0, 0, "", ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def bill_of_materials(requirements: Path) -> dict:
    """Returns the SBOM of an image in CycloneDX's JSON format.

    Licences and dependencies are read from the packages, which are installed for the image into a temporary folder.
    Hashes are those of the pinned requirements.
    """
    with TemporaryDirectory() as folder:
        install = ("pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes")
        target = ("--python-version=3.13", "--python-platform=x86_64-manylinux_2_40", f"--target={folder}")
        run(BIN / "uv", *install, *target, f"--requirements={requirements}")
        # With -S the interpreter sees only PYTHONPATH, which is that folder, and not its own site-packages.
        project = ("--pyproject", ROOT / "pyproject.toml", "--mc-type=application")
        bill = cyclonedx("environment", "-S", *project, sys.executable, PYTHONPATH=folder)
    pins = {
        canonical_name(pin["name"]): pin["externalReferences"]
        for pin in cyclonedx("requirements", requirements)["components"]
    }
    for component in bill["components"]:
        hashes = pins[canonical_name(component["name"])]
        component["externalReferences"] = component.get("externalReferences", []) + hashes
    application = bill["metadata"]["component"]["bom-ref"]
    (dependencies,) = (entry for entry in bill["dependencies"] if entry["ref"] == application)
    dependencies["dependsOn"] = sorted(component["bom-ref"] for component in bill["components"])
    return bill


def cyclonedx(*arguments: object, **environment: str) -> dict:
    return json.loads(run(BIN / "cyclonedx-py", *arguments, "--output-reproducible", **environment))


def canonical_name(package: str) -> str:
    return re.sub("[-_.]+", "-", package).lower()


def run(*command: object, **environment: str) -> str:
    """Runs a command in the root of the repository and returns its standard output."""
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
