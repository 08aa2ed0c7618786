"""Root keys in a PKCS#11 token, and the process of its own that alone uses them."""
