"""Who is calling: the process behind a connection, and what can be proved about it."""
