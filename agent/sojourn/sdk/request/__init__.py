"""How a request gets its token and its proof, whatever library sends it."""
