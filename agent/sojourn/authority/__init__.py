"""What signs: the keys of the trust domain and what may be said with them."""
