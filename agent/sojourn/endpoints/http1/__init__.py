"""HTTP/1.1 by uvicorn and Starlette."""
