"""Bytes of large requests: counted as they arrive, shared, and taken from who lets others wait."""

from dataclasses import dataclass, field

from octopus.broker.limits import Budget


@dataclass(eq=False)
class Arrival:
    """A request that does as the test says."""

    budget: Budget
    missing: int
    held: int = 0
    events: list[str] = field(default_factory=list)

    def arrive(self, size: int) -> bool:
        self.held, self.missing = self.held + size, self.missing - size
        return self.budget.hold(self, size)

    def read_on(self) -> None:
        self.events.append("read on")

    def give_up(self) -> None:
        self.events.append("gave up")
        self.budget.leave(self)
        self.budget.give(self.held)


def test_who_lacks_least_reads_on_first() -> None:
    budget = Budget(100)
    done, far, near = Arrival(budget, 90), Arrival(budget, 50), Arrival(budget, 20)
    assert done.arrive(90)
    budget.leave(done)
    assert not far.arrive(10)
    assert not near.arrive(10)
    budget.give(10)
    assert (near.events, far.events) == ([], []), "there is no room yet"
    budget.give(80)
    assert (near.events, far.events) == (["read on"], ["read on"])


def test_a_share_is_held_without_waiting() -> None:
    budget = Budget(100, share=30)
    other, large, small = Arrival(budget, 50), Arrival(budget, 200), Arrival(budget, 30)
    assert other.arrive(10)
    budget.leave(other)
    assert not large.arrive(150)
    assert small.arrive(30)


def test_of_those_who_send_nothing_the_one_that_holds_most_goes() -> None:
    budget = Budget(100)
    silent, less, waits = Arrival(budget, 500), Arrival(budget, 500), Arrival(budget, 5)
    assert silent.arrive(60)
    assert less.arrive(30)
    assert not waits.arrive(20)
    budget.relieve()
    assert silent.events == [], "something moved a moment ago"
    budget.relieve()
    assert (silent.events, less.events, waits.events) == (["gave up"], [], ["read on"])


def test_where_all_wait_for_each_other_the_one_that_lacks_most_goes() -> None:
    budget = Budget(100)
    far, near = Arrival(budget, 500), Arrival(budget, 70)
    assert far.arrive(60)
    assert not near.arrive(50)
    assert not far.arrive(1)
    budget.relieve()
    budget.relieve()
    assert (far.events, near.events) == (["gave up"], ["read on"])


def test_a_request_larger_than_everything_passes_alone() -> None:
    budget = Budget(100)
    large, other = Arrival(budget, 300), Arrival(budget, 100)
    assert other.arrive(20)
    assert not large.arrive(100)
    budget.leave(other)
    budget.give(20)
    assert large.events == ["read on"]
    assert large.arrive(200)


def test_nobody_goes_while_nobody_waits() -> None:
    budget = Budget(100)
    slow = Arrival(budget, 50)
    assert slow.arrive(40)
    for _ in range(3):
        budget.relieve()
    assert slow.events == []
    budget.leave(slow)
    budget.give(40)
    assert budget.used == 0
