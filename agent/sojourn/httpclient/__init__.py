"""The one HTTP client for everything that goes out: over guarded TCP, TLS by SPIFFE ID, or an owned Unix socket."""
