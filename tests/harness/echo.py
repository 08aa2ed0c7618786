"""A service behind a proxy: answers each request with what has reached it."""

import json
from typing import Any

from harness.loopback import LoopbackServer, QuietHandler


class Echo(LoopbackServer):
    """A plain HTTP service on loopback. Use as a context manager; `seen` are the requests that reached it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        seen = self.seen

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = [[name.lower(), value] for name, value in self.headers.items()]
                said = {"method": self.command, "path": self.path, "headers": headers, "content": content.decode()}
                seen.append(said)
                body = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

        super().__init__(Handler)
