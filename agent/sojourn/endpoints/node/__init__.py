"""SPIRE's node API: what a server's nodes call."""
