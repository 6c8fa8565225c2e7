"""The rules of the group coordinator, one by one (KIP-62, 345, 394, 429)."""

import pytest

from octopus.broker.codes import Code
from octopus.broker.groups import Group, Joined, State, Synced
from tests.broker.groups.group_cast import REBALANCE, SESSION, WINDOW, Play, wish


@pytest.fixture
def play() -> Play:
    return Play()


def code_of(play: Play, ticket: str) -> int:
    return play.answers[ticket].code


# ── newcomers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_member_leads_generation_one_after_the_join_window(play: Play) -> None:
    play.join("a", wish(fresh="a"))
    assert not play.answers, "the window is open"
    play.wait(WINDOW - 1)
    assert not play.answers
    play.wait(1)
    joined = play.answers["a"]
    assert isinstance(joined, Joined)
    assert (joined.generation, joined.leader, joined.protocol) == (1, "a", "range")
    assert [peer.member for peer in joined.peers] == ["a"]
    assert play.group.state is State.COMPLETING


def test_every_newcomer_prolongs_the_window_and_all_get_one_generation(play: Play) -> None:
    play.join("a", wish(fresh="a")).wait(WINDOW - 10).join("b", wish(fresh="b")).wait(WINDOW - 10)
    assert not play.answers
    play.wait(10)
    a, b = play.answers["a"], play.answers["b"]
    assert a.generation == b.generation == 1
    assert [peer.member for peer in a.peers] == ["a", "b"]
    assert b.peers == (), "only the leader is told who is there"


def test_the_window_never_outlasts_the_rebalance_timeout() -> None:
    play = Play(Group("g", window=60))
    for index in range(10):
        play.join(f"{index}", wish(fresh=f"{index}", rebalance=100)).wait(50)
    assert play.answers["0"].code == Code.NONE


def test_a_dynamic_newcomer_is_told_its_id_and_comes_back_with_it(play: Play) -> None:
    play.join("first", wish(fresh="a", asks_back=True))
    assert play.answers["first"] == Joined(Code.MEMBER_ID_REQUIRED, "a")
    assert not play.group.members
    play.join("second", wish("a", asks_back=True)).wait(WINDOW)
    assert play.answers["second"].member == "a"
    assert not play.group.pending


def test_a_promised_id_lapses_after_the_session_timeout(play: Play) -> None:
    play.join("first", wish(fresh="a", asks_back=True)).wait(SESSION)
    play.join("second", wish("a", asks_back=True))
    assert code_of(play, "second") == Code.UNKNOWN_MEMBER_ID


def test_a_join_phase_waits_for_promised_ids_until_they_lapse(play: Play) -> None:
    play.stable("a")
    play.join("b?", wish(fresh="b", asks_back=True)).join("a", wish("a"))
    assert "a" not in play.answers
    play.wait(SESSION)
    assert play.answers["a"].generation == 2


@pytest.mark.parametrize("asks_back", [False, True], ids=["version 3", "version 4"])
def test_an_unknown_member_id_is_refused(play: Play, asks_back: bool) -> None:
    play.join("x", wish("stranger", asks_back=asks_back))
    assert code_of(play, "x") == Code.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize(
    "other",
    [
        wish(fresh="x", kind="connect"),
        wish(fresh="x", protocols=("roundrobin",)),
        wish(fresh="x", protocols=()),
        wish(fresh="x", kind=""),
    ],
    ids=["another kind", "no shared protocol", "no protocol", "no kind"],
)
def test_who_shares_no_protocol_with_the_group_is_refused(play: Play, other: object) -> None:
    play.stable("a").join("x", other)
    assert code_of(play, "x") == Code.INCONSISTENT_GROUP_PROTOCOL


def test_a_full_group_takes_nobody_else() -> None:
    play = Play(Group("g", WINDOW, max_members=1)).stable("a").join("x", wish(fresh="x"))
    assert code_of(play, "x") == Code.GROUP_MAX_SIZE_REACHED


def test_the_protocol_is_the_shared_one_with_most_votes(play: Play) -> None:
    play.join("a", wish(fresh="a", protocols=("range", "sticky")))
    play.join("b", wish(fresh="b", protocols=("sticky", "range")))
    play.join("c", wish(fresh="c", protocols=("newest", "sticky", "range")))
    play.wait(WINDOW)
    assert play.answers["a"].protocol == "sticky"


# ── known members ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_follower_with_the_same_metadata_keeps_its_generation(play: Play) -> None:
    play.stable("a", "b").join("again", wish("b"))
    assert play.answers["again"] == Joined(Code.NONE, "b", 1, "range", "a")
    assert play.group.state is State.STABLE


@pytest.mark.parametrize(
    ("member", "metadata"),
    [("a", b"topics"), ("a", b"changed"), ("b", b"changed")],
    ids=["leader", "leader changed", "follower changed"],
)
def test_a_leader_or_changed_metadata_starts_a_new_rebalance(play: Play, member: str, metadata: bytes) -> None:
    play.stable("a", "b").join("again", wish(member, metadata=metadata))
    assert play.group.state is State.PREPARING
    assert play.beat("a") == Code.REBALANCE_IN_PROGRESS
    other = "b" if member == "a" else "a"
    play.join("other", wish(other))
    assert play.answers["again"].generation == play.answers["other"].generation == 2


def test_the_second_round_of_a_cooperative_rebalance_starts_while_the_first_is_not_synced(play: Play) -> None:
    play.join("a", wish(fresh="a")).join("b", wish(fresh="b")).wait(WINDOW)
    play.sync("sync a", "b")
    play.join("again", wish("a", metadata=b"owns nothing now"))
    assert code_of(play, "sync a") == Code.REBALANCE_IN_PROGRESS
    play.join("b again", wish("b"))
    assert play.answers["again"].generation == 2
    assert play.answers["again"].peers[0].metadata == b"owns nothing now"


def test_a_join_repeated_before_the_sync_is_answered_with_the_same_generation(play: Play) -> None:
    play.join("a", wish(fresh="a")).join("b", wish(fresh="b")).wait(WINDOW)
    play.join("a again", wish("a")).join("b again", wish("b"))
    assert play.answers["a again"] == play.answers["a"], "the leader gets the members again"
    assert play.answers["b again"] == play.answers["b"]


def test_absent_members_are_dropped_when_the_rebalance_timeout_ends(play: Play) -> None:
    play.stable("a", "b")
    play.join("c", wish(fresh="c")).join("a", wish("a"))
    for _ in range(REBALANCE // 5000 - 1):
        play.wait(5000)
        assert play.beat("b") == Code.REBALANCE_IN_PROGRESS  # alive, and yet it never joins
    assert "a" not in play.answers
    play.wait(5000)
    assert [peer.member for peer in play.answers["a"].peers] == ["a", "c"]
    assert play.beat("b") == Code.UNKNOWN_MEMBER_ID


# ── sync ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_followers_wait_for_the_leaders_assignment_and_who_is_left_out_gets_nothing(play: Play) -> None:
    play.join("a", wish(fresh="a")).join("b", wish(fresh="b")).join("c", wish(fresh="c")).wait(WINDOW)
    play.sync("sync b", "b").sync("sync c", "c")
    assert "sync b" not in play.answers
    play.sync("sync a", "a", {"a": b"0", "b": b"1", "stranger": b"2"})
    assert play.answers["sync a"] == Synced(Code.NONE, b"0")
    assert play.answers["sync b"] == Synced(Code.NONE, b"1")
    assert play.answers["sync c"] == Synced(Code.NONE, b"")
    assert play.sync("late", "b").answers["late"] == Synced(Code.NONE, b"1")


@pytest.mark.parametrize(
    ("member", "generation", "code"),
    [("x", 1, Code.UNKNOWN_MEMBER_ID), ("x", 7, Code.UNKNOWN_MEMBER_ID), ("a", 7, Code.ILLEGAL_GENERATION)],
)
def test_a_stranger_is_told_so_before_a_wrong_generation(play: Play, member: str, generation: int, code: Code) -> None:
    play.stable("a").sync("s", member, generation=generation)
    assert code_of(play, "s") == code
    assert play.beat(member, generation) == code
    assert play.group.may_commit(member, None, generation, play.now) == code


def test_a_sync_during_the_join_phase_is_refused(play: Play) -> None:
    play.stable("a", "b").join("c", wish(fresh="c")).sync("s", "a")
    assert code_of(play, "s") == Code.REBALANCE_IN_PROGRESS


def test_a_member_that_joins_but_never_syncs_is_dropped_although_it_heartbeats(play: Play) -> None:
    play.join("a", wish(fresh="a")).join("b", wish(fresh="b")).wait(WINDOW).sync("sync b", "b")
    for _ in range(REBALANCE // 5000):
        play.beat("a")
        play.wait(5000)
    assert code_of(play, "sync b") == Code.REBALANCE_IN_PROGRESS
    assert list(play.group.members) == ["b"]
    assert play.group.leader == "b"


@pytest.mark.parametrize("rebalance", [100, 300, 999, 5_000])
def test_a_rebalance_takes_as_long_as_its_members_allow_however_short(play: Play, rebalance: int) -> None:
    play.stable("a", "b", rebalance=rebalance).join("c", wish(fresh="c", rebalance=50)).wait(rebalance - 1)
    assert not play.answers
    play.wait(1)
    assert code_of(play, "c") == Code.NONE, "who did not join is dropped when the longest time-out ends"
    play.wait(49)
    assert play.beat("c") == Code.NONE
    play.wait(1)
    assert play.beat("c") == Code.UNKNOWN_MEMBER_ID, "and who did not sync by its own"


def test_a_rebalance_without_time_ends_at_once_and_does_not_spin(play: Play) -> None:
    play.join("a", wish(fresh="a", instance="s", rebalance=0)).wait(WINDOW).sync("sync a", "a", {"a": b"0"})
    play.answers.clear()
    play.join("b", wish(fresh="b", rebalance=0)).wait(1)
    assert play.answers["b"].leader == "b"


# ── heartbeats, sessions, leaving ───────────────────────────────────────────────────────────────────────────────────


def test_heartbeats_are_fine_while_assignments_are_awaited(play: Play) -> None:
    play.join("a", wish(fresh="a")).wait(WINDOW)
    assert play.group.state is State.COMPLETING
    assert play.beat("a") == Code.NONE


def test_a_silent_member_is_removed_and_the_rest_rebalance(play: Play) -> None:
    play.stable("a", "b").wait(SESSION // 2)
    play.beat("a")
    play.wait(SESSION // 2)
    assert list(play.group.members) == ["a"]
    assert play.beat("a") == Code.REBALANCE_IN_PROGRESS
    play.join("again", wish("a"))
    assert play.answers["again"].generation == 2


def test_a_member_that_waits_for_others_does_not_lose_its_session(play: Play) -> None:
    play.stable("a", "b", session=6000).join("a again", wish("a", session=6000))
    for _ in range(3):
        play.wait(5000)
        play.beat("b")
    assert "a" in play.group.members
    play.join("b again", wish("b"))
    assert code_of(play, "a again") == Code.NONE


def test_a_leaving_member_leaves_at_once_and_the_last_one_leaves_an_empty_group(play: Play) -> None:
    play.stable("a", "b")
    assert play.leave("a") == Code.NONE
    assert play.group.leader == "b"
    assert play.leave("b") == Code.NONE
    assert (play.group.state, play.group.generation) == (State.EMPTY, 2)
    assert play.leave("b") == Code.UNKNOWN_MEMBER_ID


def test_a_leader_that_leaves_during_the_join_phase_makes_another_lead(play: Play) -> None:
    play.stable("a", "b").join("b again", wish("b", metadata=b"changed"))
    play.leave("a")
    assert play.answers["b again"].leader == "b"
    assert play.answers["b again"].peers


def test_a_promised_id_can_be_given_back(play: Play) -> None:
    play.stable("a").join("b?", wish(fresh="b", asks_back=True)).join("a again", wish("a"))
    assert play.leave("b") == Code.NONE
    assert play.answers["a again"].generation == 2


def test_a_tick_that_comes_late_removes_everybody_whose_time_is_up(play: Play) -> None:
    play.stable("a", "b", "c").join("a again", wish("a", metadata=b"changed"))
    play.now += 10 * REBALANCE  # the program was stopped for a while
    play.take(play.group.tick(play.now))
    assert [peer.member for peer in play.answers["a again"].peers] == ["a"]


# ── commits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outsiders_commit_only_while_the_group_is_empty(play: Play) -> None:
    assert play.group.may_commit("", None, -1, play.now) == Code.NONE
    play.stable("a")
    assert play.group.may_commit("", None, -1, play.now) == Code.UNKNOWN_MEMBER_ID


def test_members_commit_also_while_others_join_but_not_between_join_and_sync(play: Play) -> None:
    play.stable("a", "b").join("c", wish(fresh="c"))
    assert play.group.may_commit("a", None, 1, play.now) == Code.NONE
    play.join("a again", wish("a")).join("b again", wish("b"))
    assert play.group.may_commit("a", None, 2, play.now) == Code.REBALANCE_IN_PROGRESS
    assert play.group.may_commit("a", None, 1, play.now) == Code.ILLEGAL_GENERATION


def test_members_commit_in_a_transaction_while_they_are_what_they_say_and_outsiders_always(play: Play) -> None:
    play.stable("a", "b").join("c", wish(fresh="c"))

    def code(member: str, generation: int) -> Code:
        return play.group.may_commit(member, None, generation, play.now, in_transaction=True)

    assert code("a", 1) == Code.NONE
    assert code("a", 7) == Code.ILLEGAL_GENERATION
    assert code("z", 1) == Code.UNKNOWN_MEMBER_ID
    assert code("", -1) == Code.NONE, "before version 3 nobody can say who they are"
    play.join("a again", wish("a")).join("b again", wish("b"))
    assert code("a", 1) == Code.ILLEGAL_GENERATION
    assert code("a", 2) == Code.NONE, "between join and sync too"


# ── static members ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def static() -> Play:
    """A stable group of two static members, `a` leading."""
    play = Play()
    play.join("a", wish(fresh="a", instance="A")).join("b", wish(fresh="b", instance="B")).wait(WINDOW)
    play.sync("sync b", "b").sync("sync a", "a", {"a": b"0", "b": b"1"})
    play.answers.clear()
    return play


@pytest.mark.parametrize(("instance", "old", "share"), [("A", "a", b"0"), ("B", "b", b"1")], ids=["leader", "follower"])
def test_a_restarted_static_member_continues_without_a_rebalance(
    static: Play, instance: str, old: str, share: bytes
) -> None:
    static.join("back", wish(fresh="new", instance=instance))
    assert static.answers["back"] == Joined(Code.NONE, "new", 1, "range", "a"), "the old leader's id: it need only sync"
    assert static.group.state is State.STABLE
    static.sync("s", "new", instance=instance)
    assert static.answers["s"] == Synced(Code.NONE, share)
    assert static.beat(old, instance=instance) == Code.FENCED_INSTANCE_ID
    assert static.beat(old) == Code.UNKNOWN_MEMBER_ID


def test_a_static_member_that_returns_during_the_join_phase_fences_its_former_self(static: Play) -> None:
    static.join("b changes", wish("b", instance="B", metadata=b"more"))
    static.join("back", wish(fresh="new", instance="B"))
    assert code_of(static, "b changes") == Code.FENCED_INSTANCE_ID
    static.join("a again", wish("a", instance="A"))
    assert static.answers["back"].generation == 2
    assert [peer.member for peer in static.answers["a again"].peers] == ["a", "new"]


def test_a_static_member_that_returns_before_the_sync_starts_a_new_rebalance(static: Play) -> None:
    static.join("a changes", wish("a", instance="A", metadata=b"more")).join("b again", wish("b", instance="B"))
    assert static.group.state is State.COMPLETING
    static.join("back", wish(fresh="new", instance="B"))
    assert static.group.state is State.PREPARING


def test_an_absent_static_member_keeps_its_place_until_its_session_ends(static: Play) -> None:
    static.join("a changes", wish("a", instance="A", metadata=b"more", rebalance=100))
    static.group.members["b"].rebalance_timeout = 100
    static.wait(SESSION - 1)
    assert "b" in static.group.members
    static.wait(REBALANCE)
    assert static.answers["a changes"].code == Code.NONE
    assert "b" not in static.group.members


def test_leaving_by_instance_alone_removes_the_member(static: Play) -> None:
    assert static.leave("", "nobody") == Code.UNKNOWN_MEMBER_ID
    assert static.leave("other", "A") == Code.FENCED_INSTANCE_ID
    assert static.leave("", "A") == Code.NONE
    assert list(static.group.members) == ["b"]


def test_an_instance_the_group_never_saw_does_not_make_a_member_static(play: Play) -> None:
    play.stable("a")
    assert play.beat("a", instance="A") == Code.UNKNOWN_MEMBER_ID
