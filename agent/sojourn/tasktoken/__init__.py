"""Task tokens and their proofs, as values: claims, grants, binding, DPoP."""
