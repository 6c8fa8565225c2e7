"""Retries with a long wait: the topics they wait in, and which of them wait in memory."""
