"""What `make release` puts beside the wheel: the Bento, and of each image a bill of what it holds (CycloneDX).

The same bytes for the same commit: every time in them is $SOURCE_DATE_EPOCH.
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
        bento(Path(home), version, dist / f"mnist-gan-{version}.bento")
    for image in IMAGES:
        bill = bill_of_materials(ROOT / f"serving/http/requirements-{image}.txt")
        (dist / f"mnist-gan-{version}-{image}.cdx.json").write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n")


def bento(home: Path, version: str, out: Path) -> None:
    """Of an empty store, so that it packs the generator that ships; `bentoml export` would write the times as well."""
    environment = {"BENTOML_HOME": str(home), "MNIST_GAN_IMAGE": "cpu"}
    run(BIN / "bentoml", "build", "--version", version, **environment)
    folder = home / "bentos/mnist-gan" / version
    made = f"creation_time: '{datetime.fromtimestamp(EPOCH, UTC).isoformat(timespec='microseconds')}'"
    described, times = re.subn(
        "^creation_time: .*$", made, (folder / "bento.yaml").read_text(), count=1, flags=re.MULTILINE
    )
    assert times == 1
    (folder / "bento.yaml").write_text(described)
    with tarfile.open(out, "w:xz", format=tarfile.PAX_FORMAT) as packed:
        for path in [folder, *sorted(folder.rglob("*"))]:
            packed.add(path, path.relative_to(folder), recursive=False, filter=anonymous)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = EPOCH, 0, 0, "", ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def bill_of_materials(requirements: Path) -> dict:
    """Licences and dependencies from the packages as they are installed for the image, hashes from their pins."""
    with TemporaryDirectory() as folder:
        install = ("pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes")
        target = ("--python-version=3.13", "--python-platform=x86_64-manylinux_2_40", f"--target={folder}")
        run(BIN / "uv", *install, *target, f"--requirements={requirements}")
        # -S: of this interpreter only its path, which leads to that folder, not the packages of its own.
        project = ("--pyproject", ROOT / "pyproject.toml", "--mc-type=application")
        bill = cyclonedx("environment", "-S", *project, sys.executable, PYTHONPATH=folder)
    pins = {
        normal(pin["name"]): pin["externalReferences"] for pin in cyclonedx("requirements", requirements)["components"]
    }
    for component in bill["components"]:
        component["externalReferences"] = component.get("externalReferences", []) + pins[normal(component["name"])]
    (whole,) = (one for one in bill["dependencies"] if one["ref"] == bill["metadata"]["component"]["bom-ref"])
    whole["dependsOn"] = sorted(component["bom-ref"] for component in bill["components"])
    return bill


def cyclonedx(*arguments: object, **environment: str) -> dict:
    return json.loads(run(BIN / "cyclonedx-py", *arguments, "--output-reproducible", **environment))


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def run(*command: object, **environment: str) -> str:
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
