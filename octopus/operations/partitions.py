"""The partitions of named topics, and how much they hold."""

from collections import Counter
from collections.abc import Collection, Iterable

from octopus.config.loading import suggestion
from octopus.errors import TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.base import Admin


async def partitions_of(
    admin: Admin, topics: Iterable[str], only: Collection[int] = (), *, address: str
) -> list[TopicPartition]:
    """Return the partitions of topics.

    Args:
        admin: Whom to ask.
        topics: Names.
        only: Numbers of partitions; all when empty.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: A topic, or a partition of it, does not exist; the sentence suggests one that does.
    """
    known = {topic.name: topic.partitions for topic in await admin.topics()}
    found = []
    for topic in topics:
        if topic not in known:
            visible = [name for name in known if not name.startswith("__")]
            raise TopicNotFound(
                f"There is no topic {topic!r} on {address}.{suggestion(topic, visible)} See octopus topics."
            )
        for number in only or range(known[topic]):
            if number not in range(known[topic]):
                raise TopicNotFound(f"{topic!r} has no partition {number}; it has {known[topic]}, counted from 0.")
            found.append(TopicPartition(topic, number))
    return found


async def count_events(admin: Admin, places: Collection[TopicPartition]) -> Counter[str]:
    """Return how many offsets each topic holds in these partitions; of compacted topics that is more than there are events."""
    if not places:
        return Counter()
    first, end = await admin.offsets(places, "earliest"), await admin.offsets(places, "latest")
    counts: Counter[str] = Counter()
    for place in places:
        counts[place.topic] += end[place] - first[place]
    return counts
