"""The server beneath the stand-ins that speak HTTP: a thread for each connection, and TLS if there is a context."""

import contextlib
import http.server
import ssl
import threading
from typing import Any


class HttpServer(http.server.ThreadingHTTPServer):
    """Set `context` before it serves, for TLS. What clients break off is nobody's failure."""

    daemon_threads = True
    request_queue_size = 1024
    context: ssl.SSLContext | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve in a thread of its own, until `end`."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Serve no longer; what was started is over when this returns."""
        assert self._thread is not None
        self.shutdown()
        self.server_close()
        self._thread.join()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                return  # the client did not like the certificate, or did not speak TLS
        with contextlib.suppress(OSError):
            super().finish_request(request, client_address)
        if self.context is not None:
            request.close()
