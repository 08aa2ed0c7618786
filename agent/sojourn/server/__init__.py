"""The nodes of a server: who they are, how they prove it, what each may have, and what is signed for them."""
