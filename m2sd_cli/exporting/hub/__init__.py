"""Folder of a session for a model hub, which answers without this package."""
