"""A hub that repeats the secrets it received, for tests that they are not printed."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

TOKEN = "planted-token-that-nobody-may-see"
"""Of no form that would be known for a token's."""
PASSWORD = "open-sesame-for-the-proxy"
SECRETS = (TOKEN, PASSWORD)


class Gossip(http.server.BaseHTTPRequestHandler):
    """A hub that answers with the secrets it received."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        secret = self.headers.get("Authorization", "nobody")
        self.asked.append(secret)
        body = json.dumps({"error": f"not for {secret}"}).encode()
        self.send_response(403)
        self.send_header("X-Error-Message", f"not for {secret}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def gossiping_hub() -> Iterator[str]:
    """Start one; yields its address."""
    Gossip.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gossip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
