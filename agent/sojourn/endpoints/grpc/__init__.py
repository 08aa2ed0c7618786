"""gRPC over our HTTP/2: calls, statuses, pages."""
