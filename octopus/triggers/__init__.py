"""Triggers: the same handlers as functions that a cloud service calls."""
