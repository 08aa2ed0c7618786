"""The listener, and every API that hangs on it."""
