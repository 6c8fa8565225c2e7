"""The embedded broker: one node that speaks the Kafka protocol, in memory or on a data directory. Standard library only."""
