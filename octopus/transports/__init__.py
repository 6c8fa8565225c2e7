"""Ways to a broker: in memory, embedded, Kafka. `opening.py` opens any of them by address or from the settings.

Nothing is imported here, so that a broker's own process starts without the clients.
"""
