"""aiokafka's clients with our parts: connections, and what reads the batches that they fetch."""

from aiokafka.errors import KafkaConnectionError

from octopus.transports.kafka import engine, producer_engine
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.connection import create_connection
from octopus.transports.kafka.fetched import FetchedBatches


class Client(engine.Client, open_connection=create_connection):
    """A client over our connections."""

    def asked(self, is_answered: bool) -> None:
        """Let it be said when an outage begins, and when it ends."""
        name = ClientName.of(self)
        if name.outage is not None and not name.is_closed:
            name.outage.note(None if is_answered else name.failure or KafkaConnectionError("nothing came"))

    async def close(self) -> None:
        """Close, with every connection: aiokafka forgets one that is being made, and that of a start that was cancelled."""
        name = ClientName.of(self)
        name.is_closed = True
        await super().close()
        for connection in [each for each in name.opened if each.transport is not None]:
            await connection.close()


class Consumer(engine.Consumer, client=Client, read_batches=FetchedBatches):
    """A consumer over our connections, whose batches are read where they lie."""


class Producer(producer_engine.Producer, client=Client):
    """A producer over our connections."""
