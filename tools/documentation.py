"""Builds the documentation site: generates its reference pages, then runs Zensical in strict mode.

    python -m tools.documentation build      # into site/, with a live demo if there is one in dist/site/
    python -m tools.documentation serve      # on http://localhost:8000, rebuilt at every change

`make docs` and `make docs-serve` call it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COMMANDS = ("train", "export-onnx", "evaluate", "verify-model", "sample", "export-site")
DEMO = ROOT / "dist/site"
"""Folder that `make site` writes. If it exists, the first page embeds it as a live demo."""
LIVE_DEMO = """<iframe class="demo" src="demo/index.html" title="Live demo: the model runs in this page"></iframe>

The model runs in this page, in your browser ([how](without-a-server.md))."""
PICTURE = "![Forty generated digits, four of each class](request.png)"
HELP_WIDTH = 110
"""Width in characters of the help texts on the page of commands."""
BOUNDS = {"array": ("minItems", "maxItems", " items"), "string": ("minLength", "maxLength", " characters")}
"""Names of the bounds in JSON Schema, and the unit of their values, for types other than numbers."""


def main() -> None:
    if sys.argv[1:] not in (["build"], ["serve"]):
        sys.exit("usage: python -m tools.documentation build|serve")
    (DOCS / ".generated").mkdir(exist_ok=True)
    (DOCS / "cli.md").write_text(command_page())
    (DOCS / ".generated/routes.md").write_text(route_sections())
    build = sys.argv[1] == "build"
    has_demo = build and (DEMO / "index.html").exists()
    (DOCS / ".generated/demo.md").write_text(f"{LIVE_DEMO if has_demo else PICTURE}\n")
    arguments = ["build", "--clean", "--strict"] if build else ["serve"]
    done = subprocess.run([sys.executable, "-m", "zensical", *arguments], cwd=ROOT)
    if has_demo:
        shutil.copytree(DEMO, ROOT / "site/demo", dirs_exist_ok=True)
    sys.exit(done.returncode)


def format_formula(source: str, language: str, css_class: str, *_: Any, **__: Any) -> str:
    """Formats a block of LaTeX as MathML. Zensical calls it for blocks of the language `math`."""
    from latex2mathml.converter import convert

    return f'<div class="{css_class}">{convert(source, display="block")}</div>'


def command_page() -> str:
    """Returns the page of commands: the help text of each, as the installed command prints it."""
    parts = [
        "# Commands\n\nThe commands are in `.venv/bin`. This page shows their `--help`. In bash, with the environment "
        "active, `source tools/completion.bash` turns on the completion of options and their values."
    ]
    for command in COMMANDS:
        parts.append(f"## {command}\n\n```text\n{help_text(command)}\n```")
    return "\n\n".join(parts) + "\n"


def help_text(command: str) -> str:
    environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": str(HELP_WIDTH)}
    shown = subprocess.run(
        [Path(sys.executable).parent / command, "--help"], env=environment, check=True, capture_output=True, text=True
    )
    return "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())


def route_sections() -> str:
    """Returns a section for each route of the service's own API, from the OpenAPI description for the pretrained
    generator. Other protocols have pages of their own."""
    from models.onnx_file.generator import Generator
    from models.onnx_file.store import SHIPPED
    from serving.http.openapi import ROUTES, specification

    description = specification(Generator.open(SHIPPED).card)
    schemas = description["components"]["schemas"]
    sections = []
    for path in ROUTES:
        sections.append(_route_section(path, description["paths"][path]["post"], schemas))
    return "\n\n".join(sections) + "\n"


def _route_section(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    schema = _resolve(operation["requestBody"]["content"]["application/json"]["schema"], schemas)
    lines = [f"## {path}", "", operation["summary"] + "."]
    if "description" in operation:
        lines += ["", operation["description"]]
    if schema.get("properties"):
        lines += ["", "| field | value | default | |", "| --- | --- | --- | --- |"]
        required = schema.get("required", [])
        for name, field in schema["properties"].items():
            default = "required" if name in required else f"`{field['default']}`" if "default" in field else "none"
            lines.append(f"| `{name}` | {_values(field, schemas)} | {default} | {field.get('description', '')} |")
    types = ", ".join(f"`{media_type}`" for media_type in operation["responses"]["200"]["content"])
    return "\n".join([*lines, "", f"Response: {types}."])


def _values(field: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Describes the values that a field accepts, in a few words."""
    if "anyOf" in field:
        return " or ".join(_values(option, schemas) for option in field["anyOf"])
    if "$ref" in field:
        inner = _resolve(field, schemas)
        return "object: " + ", ".join(f"`{name}`" for name in inner["properties"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field["type"]
    low_key, high_key, unit = BOUNDS.get(kind, ("minimum", "maximum", ""))
    low, high = field.get(low_key), field.get(high_key)
    if kind == "array":
        kind = f"list of {_values(field['items'], schemas)}"
    if field.get("exclusiveMaximum") == 2**53:
        return f"{kind} from {low} to 2^53 - 1"
    if "exclusiveMinimum" in field:
        kind += f" above {field['exclusiveMinimum']}"
    if high is None:
        return kind
    if low is None:
        return f"{kind}, at most {high:,}{unit}"
    return f"{kind} {'of' if unit else 'from'} {low:,} to {high:,}{unit}"


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


if __name__ == "__main__":
    main()
