"""HTTP/2 as gRPC uses it: a server's connections (RFC 9113) and the streams on them."""
