"""The app as an AWS Lambda function behind a Kafka event source mapping.

    from octopus.triggers.aws import handler

    lambda_handler = handler(app)

This is all that runs in a cold function, so it imports nothing that it may not need: no Kafka client until something is
published, and no AWS library at all.
"""

from octopus.triggers.aws.event import KafkaEvent, decode
from octopus.triggers.aws.handler import Trigger, handler

__all__ = ["KafkaEvent", "Trigger", "decode", "handler"]
