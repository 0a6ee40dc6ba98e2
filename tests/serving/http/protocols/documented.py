"""Runs the commands of a page of the documentation against a service."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tools.service_process import ROOT

MARKER = "<!-- run against a service -->"
"""Stands before each block of commands or Python that a test runs, next to a service at localhost:3000."""


def commands(page: str) -> list[tuple[str, str]]:
    """Returns the language and the text of each marked block of a page in docs/."""
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(rf"^{MARKER}\n+```(sh|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == text.count(MARKER)
    return found


def run(language: str, code: str, url: str, folder: Path, python: Path | str = sys.executable) -> str:
    """Runs a block in a folder, with the address of a service instead of localhost:3000. Returns what it prints."""
    code = code.replace("http://localhost:3000", url).replace("localhost:3000", url.removeprefix("http://"))
    command = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [str(python), "-c"]
    environment = os.environ | {"PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*command, code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
