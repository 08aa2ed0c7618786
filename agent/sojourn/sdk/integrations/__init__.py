"""The guards and clients for frameworks: ASGI, WSGI, gRPC, MCP, httpx, requests."""
