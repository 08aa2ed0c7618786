"""Facts: what is said of the world, and read by policies."""
