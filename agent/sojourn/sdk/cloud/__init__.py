"""Local endpoints that the SDKs of clouds and vaults read by themselves, for the outside resources of a task."""
