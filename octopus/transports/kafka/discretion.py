"""A log that has no secrets in it: a SaslAuthenticate request carries the token, and aiokafka logs whole requests."""

import logging

from aiokafka.protocol.struct import Struct


class Discreet(logging.Filter):
    """Drops the records that print whole requests and answers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record may be kept."""
        return not any(isinstance(argument, Struct) for argument in record.args or ())


discreet_log = logging.getLogger("aiokafka.conn.octopus")
"""The log of our connections; other users of aiokafka have their own."""

discreet_log.addFilter(Discreet())
