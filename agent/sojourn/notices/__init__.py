"""Notices of requests for approval, to people."""
