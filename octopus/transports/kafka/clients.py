"""aiokafka's clients with our parts: connections, and what reads the batches that they fetch."""

from octopus.transports.kafka import engine
from octopus.transports.kafka.connection import create_connection
from octopus.transports.kafka.fetched import FetchedBatches


class Client(engine.Client, open_connection=create_connection):
    """A client over our connections."""


class Consumer(engine.Consumer, client=Client, read_batches=FetchedBatches):
    """A consumer over our connections, whose batches are read where they lie."""


class Producer(engine.Producer, client=Client):
    """A producer over our connections."""
