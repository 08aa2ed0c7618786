"""What listens: Unix sockets and TLS, who may come in, and whose turn it is."""
