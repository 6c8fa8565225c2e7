"""A machine as others see it: cores, and a link in each direction."""

from benchmarks.simulation.timeline import Station, Timeline


class Machine:
    """Cores, and a link in each direction."""

    def __init__(self, timeline: Timeline, cores: Station, bandwidth: float) -> None:
        self.cores = cores
        self.outward = Station(timeline, speed=bandwidth)
        self.inward = Station(timeline, speed=bandwidth)


def transfer(source: Machine, target: Machine, size: float) -> float:
    """Take both links; return the seconds until the last byte is there. It comes in while it still goes out."""
    return max(source.outward.serve(size), target.inward.serve(size))
