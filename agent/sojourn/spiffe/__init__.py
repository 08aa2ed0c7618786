"""SPIFFE's own things as values: IDs, SVIDs, bundles. Knows nothing of the rest of the project but its errors."""
