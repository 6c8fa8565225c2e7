"""A simulation of producers, links, brokers, partitions and workers, with costs that were measured here."""
