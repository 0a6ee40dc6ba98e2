"""Checks README and docs: links, pictures, navigation and commands; and builds the site."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import documentation

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")]
TEXTS += [ROOT / "models/pretrained/README.md", *PAGES]
GENERATED = {"cli.md"}
"""Pages that `make docs` generates."""
RUNNABLE = "<!-- run -->"
"""Stands before a block of commands or Python that a test runs as it is, next to a model file `a.onnx`."""
SYSTEM_COMMANDS = {
    *("bash", "buildah", "cd", "curl", "docker", "git", "kill", "kubectl", "pip", "python", "python3", "source"),
    *("torchrun", "bentoml", "openssl"),
}


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


def links(text: str) -> Iterator[str]:
    """Targets of links and pictures, outside code."""
    yield from re.findall(r"\]\(([^)\s]+)\)", without_code(text))


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blocks(text: str, languages: tuple[str, ...]) -> Iterator[str]:
    yield from re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def runnable() -> Iterator[tuple[str, str, str]]:
    for path in TEXTS:
        pattern = rf"^{RUNNABLE}\n+```(sh|python)\n(.*?)^```"
        for number, (language, code) in enumerate(
            re.findall(pattern, path.read_text(), flags=re.MULTILINE | re.DOTALL), 1
        ):
            yield pytest.param(language, code, id=f"{path.name}-{number}")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_picture_leads_to_something_that_exists(path):
    for target in links(path.read_text()):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if file.name in GENERATED:
            continue
        assert file.exists(), f"{target} does not exist"
        if path in PAGES:
            assert file.is_relative_to(ROOT / "docs"), f"{target} is outside of docs/, so the site does not have it"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: there is no such heading"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_placeholder_in_capitals_is_left_outside_code(path):
    assert re.findall(r"\b[A-Z]+_[A-Z_]+\b", without_code(path.read_text())) == []


def test_the_navigation_lists_every_page_once():
    configuration = tomllib.loads((ROOT / "zensical.toml").read_text())

    def listed(entries: list) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from listed(value) if isinstance(value, list) else [value]

    pages = sorted(listed(configuration["project"]["nav"]))
    assert pages == sorted({page.name for page in PAGES} | GENERATED)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_block_exists(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    scripts = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
    text = path.read_text()
    lines = [line for block in blocks(text, ("sh",)) for line in block.replace("\\\n", " ").splitlines()]
    lines += [line[2:] for block in blocks(text, ("console",)) for line in block.splitlines() if line.startswith("$ ")]
    document = False
    for line in lines:
        if "<<" in line or line == "END":  # the lines of a here-document are not commands
            document = "<<" in line
            continue
        words = re.sub(r"^(\w+=(\$\([^)]*\)\S*|\S*) )+", "", line).split()
        if document or not words or line.startswith(("#", " ")):
            continue
        command = words[0].removeprefix(".venv/bin/")
        if command == "make":
            assert words[1] in targets, f"make {words[1]} does not exist"
        elif command.startswith("examples/"):
            assert (ROOT / command).exists(), line
        else:
            assert command in scripts | SYSTEM_COMMANDS, f"{command} does not exist: {line}"


@pytest.mark.slow
@pytest.mark.parametrize(("language", "code"), [*runnable()])
def test_a_block_that_is_marked_as_runnable_runs_as_it_is(language, code, tmp_path):
    shutil.copy(ROOT / "models/pretrained/mnist-fast.onnx", tmp_path / "a.onnx")
    command = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_first_page_embeds_the_page_without_a_server_where_it_has_been_built(monkeypatch, tmp_path):
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    (tmp_path / "index.html").write_text("the demo")
    monkeypatch.setattr(documentation, "DEMO", tmp_path)
    monkeypatch.setattr(sys, "argv", ["documentation", "build"])
    with pytest.raises(SystemExit, match=r"^0$"):
        documentation.main()
    assert '<iframe class="demo" src="demo/index.html"' in (ROOT / "site/index.html").read_text()
    assert (ROOT / "site/demo/index.html").read_text() == "the demo"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_other_hosts():
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    subprocess.run([sys.executable, "-m", "tools.documentation", "build"], cwd=ROOT, check=True, timeout=300)
    for page in (ROOT / "site").glob("*.html"):
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"(https?://[^\"]+)\"", html)
        assert [url for url in loaded if "canonical" not in url] == [], page.name
        for picture in re.findall(r"<img[^>]*src=\"([^\"]+)\"", html):
            assert (page.parent / picture).exists(), f"{page.name} shows {picture}, which does not exist"
