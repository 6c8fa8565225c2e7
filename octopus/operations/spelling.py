"""Counts, rates and sizes in sentences."""

RATE_COUNT, RATE_TIME = 100, 1.0
"""Events, and seconds, below which a rate per second is not worth telling."""


def spell_count(count: int, noun: str) -> str:
    """Return `1 event`, `2,000 events`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def spell_rate(count: int, seconds: float) -> str:
    """Return `, 2,000 a second`; nothing for a few events or a moment, of which it would say nothing."""
    return f", {count / seconds:,.0f} a second" if count >= RATE_COUNT and seconds >= RATE_TIME else ""


def spell_bytes(size: float) -> str:
    """Return a size as people say it."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
