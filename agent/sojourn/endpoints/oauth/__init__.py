"""The endpoints of the token service: token, introspection, revocation, metadata, status lists, events."""
