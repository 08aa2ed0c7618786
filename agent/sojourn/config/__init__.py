"""The agent's configuration: one TOML file, variables and flags."""
