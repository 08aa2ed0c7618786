"""Asking what may be slow or hostile: HTTP servers, the system bus, names of users. A limit to everything."""
