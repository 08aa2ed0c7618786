"""Addresses, URLs, sockets and TLS, without a word of what they are used for."""
