"""`sojourn audit witness`: its HTTP server, which no agent is part of."""
