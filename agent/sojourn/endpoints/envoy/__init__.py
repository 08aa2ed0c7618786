"""What an Envoy asks for: secrets (SDS), and whether a request may pass (ext_authz)."""
