"""What plugins are made of: `sojourn.plugins.attestor` and `sojourn.plugins.provider`."""
