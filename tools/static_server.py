"""A plain static server, as a host of static files is, which logs the paths of its requests."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serving.offline.export_site import CONTENT_SECURITY_POLICY


class StaticServer(ThreadingHTTPServer):
    """Serves a folder under the path /sub/folder/, with the policy of the page as a header."""

    daemon_threads = True

    def __init__(self, folder: Path, replaced: Mapping[str, bytes]):
        self.folder, self.replaced = folder, replaced
        self.log: list[str] = []
        """Path of each request."""
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, host: str = "localhost") -> str:
        return f"http://{host}:{self.server_port}/sub/folder/"


class _Handler(SimpleHTTPRequestHandler):
    server: StaticServer

    def do_GET(self) -> None:
        self.server.log.append(self.path)
        name = self.path.removeprefix("/sub/folder/")
        if name not in self.server.replaced:
            super().do_GET()
            return
        content = self.server.replaced[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def translate_path(self, path: str) -> str:
        self.directory = str(self.server.folder)
        return super().translate_path(path.removeprefix("/sub/folder"))

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def static_server(folder: Path, replaced: Mapping[str, bytes] | None = None) -> Iterator[StaticServer]:
    """Serves a folder. `replaced` has other contents for some of its files, by their path."""
    with StaticServer(folder, replaced or {}) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
