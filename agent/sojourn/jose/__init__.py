"""JOSE: compact JWS and strict JSON. Values alone."""
