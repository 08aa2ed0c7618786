"""TLS by SPIFFE ID, as go-spiffe's package of this name: contexts, and the check of a peer."""
