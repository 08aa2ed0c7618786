"""The bundles of other trust domains: fetched, and kept fresh."""
