"""The token service: RFC 8693 and 7523 (tokens), 7662 (introspection), 7009 (revocation), 9449 and 8705 (binding)."""
