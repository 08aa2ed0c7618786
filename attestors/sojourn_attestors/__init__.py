"""Attestors that come with Sojourn, found as any third party's are: through `sojourn.attestors`."""
