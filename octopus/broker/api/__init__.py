"""The Kafka APIs that are served: a table of API key → versions and handler. An API that is not here is not advertised."""

from octopus.broker.api import (
    configs,
    fetch,
    group_admin,
    group_offsets,
    membership,
    metadata,
    offsets,
    produce,
    sasl,
    topic_partitions,
    topics,
    transaction_admin,
    transactions,
    versions,
)
from octopus.broker.request import Api

_FAMILIES = (
    produce,
    fetch,
    offsets,
    metadata,
    group_offsets,
    membership,
    group_admin,
    topics,
    topic_partitions,
    transactions,
    transaction_admin,
    configs,
    sasl,
)

TABLE: dict[int, Api] = {api.key: api for family in _FAMILIES for api in family.APIS}
TABLE[18] = versions.api_versions(lambda: sorted(TABLE.values(), key=lambda api: api.key))

__all__ = ["TABLE"]
