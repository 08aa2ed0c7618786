"""What a request's ASGI scope has beside ASGI's own members."""

SENDER = "sojourn.sender"  # who sent it: a tasks.clients.Sender
HELD = "sojourn.held"  # what is held of all requests that came in by the same way: a quota Held
