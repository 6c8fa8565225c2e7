"""What aiokafka logs of our clients: nothing, unless a program asks for it. Other clients in the process are logged as ever.

While a broker is away aiokafka logs every attempt, dozens in a second, and a program that has not set up logging gets them all
on standard error. What matters of them is said by us, once, and errors reach the caller.
"""

import logging
from typing import Any

from aiokafka.protocol.struct import Struct

from octopus.logs import ENGINE, get_logger


class EngineLog(logging.LoggerAdapter[logging.Logger]):
    """A log that has no secrets in it: a SaslAuthenticate request carries the token, and aiokafka logs whole requests."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, unless that prints a whole request or answer."""
        if self.isEnabledFor(level) and not any(isinstance(each, Struct) for each in args):
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})


_logger = get_logger(ENGINE)
if _logger.level == logging.NOTSET:  # the program may have set it already
    _logger.setLevel(logging.CRITICAL)

engine_log = EngineLog(_logger, {})
