"""Measures Octopus beside its peers: same broker, same records, same promise, one core. See README.md."""
