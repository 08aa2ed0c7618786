"""Docker Engine and Podman, asked about containers."""
