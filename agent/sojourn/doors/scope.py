"""What a request's ASGI scope has beside ASGI's own members."""

SENDER = "sojourn.sender"  # who sent it: a tasks.clients.Sender
