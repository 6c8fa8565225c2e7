"""The 66 scenarios, and which tests show each of them on which brokers and in which modes.

`python -m tests.faults.scenarios` writes the table into this folder's README; `test_scenarios.py` compares them. What runs
is not claimed here: pytest collects the tests, and their parameters say it.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.modes import MODES

ROOT = Path(__file__).resolve().parents[2]
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- scenarios: begin -->\n", "<!-- scenarios: end -->\n"


class Scenario(NamedTuple):
    """What may happen.

    Attributes:
        title: In words.
        tests: File below `tests/` and names of functions without `test_`.
        note: Why it does not run on some broker or in some mode.
    """

    title: str
    tests: Mapping[str, Sequence[str]]
    note: str = ""


CRASHES, HANDLERS, OUTAGES = "faults/test_crashes", "faults/test_handlers", "faults/test_outages"
REBALANCES, SHUTDOWN, ONCE = "faults/test_rebalances", "faults/test_shutdown", "faults/test_exactly_once"
SECOND_ENGINE = "faults/test_librdkafka"
COMMITS, DELIVERY = "worker/test_commits", "worker/test_delivery"
BROKERS = "worker/test_delivery_on_brokers"
FAULTS, READING = "transports/test_faults", "transports/test_reading"
ONCE_BROKERS, ONCE_PROCESSES = "worker/test_exactly_once_on_brokers", "worker/test_exactly_once_in_processes"

INJECTED = "the errors are ordered from the embedded broker; Kafka's own come with 49"
HELD_UP = "elsewhere it holds up everything behind it"
READ = "reading knows no ordering"
DECODED = "decoding knows neither broker nor ordering"
NOT_GENUINE = "no genuine broker loses what it acknowledged on demand"

SCENARIOS: dict[str, dict[int, Scenario]] = {
    "Commits": {
        1: Scenario(
            "the first record of a fresh group hangs",
            {
                HANDLERS: ["a_first_record_that_hangs_holds_the_commit_back_until_it_is_finished"],
                COMMITS: ["nothing_is_committed_past_a_first_record_that_hangs"],
            },
        ),
        2: Scenario(
            "the same right after a rebalance",
            {
                REBALANCES: ["slow_work_beyond_the_budget_goes_to_the_next_owner"],
                "runner/test_assignments": ["a_late_result_leaves_the_next_assignment_of_the_partition_alone"],
            },
        ),
        3: Scenario(
            "a first offset other than 0",
            {
                HANDLERS: ["a_first_record_that_hangs_holds_the_commit_back_until_it_is_finished"],
                "runner/test_commit_safety": ["the_committable_offset_stays_at_a_first_record_that_hangs"],
            },
        ),
        4: Scenario(
            "random completion, hundreds in flight",
            {
                HANDLERS: ["with_hundreds_in_flight_that_end_in_any_order_no_commit_passes_an_unfinished_one"],
                "runner/test_commit_safety": ["with_a_thousand_in_flight_no_sample_passes_an_unfinished_record"],
            },
        ),
        5: Scenario(
            "gaps between offsets",
            {
                HANDLERS: ["what_no_handler_sees_moves_the_commit_and_does_not_come_again"],
                COMMITS: ["compacted_and_filtered_records_do_not_hold_commits_back"],
                FAULTS: ["records_of_aborted_transactions_are_passed_over_and_the_position_goes_on"],
            },
        ),
        6: Scenario(
            "everything is filtered out",
            {HANDLERS: ["what_no_handler_sees_moves_the_commit_and_does_not_come_again"]},
        ),
        7: Scenario(
            "the last record is dead-lettered, then idle, then a restart",
            {HANDLERS: ["what_no_handler_sees_moves_the_commit_and_does_not_come_again"]},
        ),
        8: Scenario(
            "a commit fails in each way",
            {
                BROKERS: ["commits_that_a_broker_refuses_are_repeated_and_lose_nothing"],
                FAULTS: ["errors_of_a_commit", "a_commit_that_is_not_answered_fails_in_time_and_can_be_repeated"],
                COMMITS: ["a_commit_that_fails_is_repeated_and_nothing_goes_backwards"],
            },
            INJECTED,
        ),
        9: Scenario(
            "a late end in an assignment that is over",
            {
                HANDLERS: ["a_late_end_of_a_handler_that_lost_its_partition_counts_for_nothing"],
                "worker/test_rebalance": ["a_late_result_of_a_thread_settles_nothing"],
            },
        ),
        10: Scenario(
            "commits while idle and by timer",
            {
                HANDLERS: ["what_no_handler_sees_moves_the_commit_and_does_not_come_again"],
                COMMITS: ["so_many_settled_records_are_committed_before_the_interval_ends"],
            },
        ),
    },
    "Crashes": {
        11: Scenario(
            "SIGKILL at random points",
            {
                CRASHES: [
                    "workers_killed_at_random_points_lose_nothing",
                    "fifty_kills_in_each_mode_lose_nothing",
                ],
                ONCE: ["outputs_of_killed_workers_are_visible_once"],
            },
        ),
        12: Scenario(
            "a kill inside the first handler, with `latest`",
            {CRASHES: ["a_kill_inside_the_first_handler_of_a_group_that_starts_at_latest_loses_nothing"]},
        ),
        13: Scenario(
            "a partition is added, with `latest`",
            {REBALANCES: ["a_partition_that_is_added_is_read_from_its_beginning"]},
        ),
        14: Scenario(
            "a kill between effect and commit",
            {CRASHES: ["a_kill_between_effect_and_commit_repeats_and_does_not_lose"]},
        ),
        15: Scenario(
            "after a kill only unfinished records come again",
            {CRASHES: ["after_a_kill_only_what_was_unfinished_comes_again"]},
            "in order nothing is settled beyond an unfinished one",
        ),
        16: Scenario(
            "a broker that lost its latest records; coordinator errors",
            {
                OUTAGES: ["of_a_broker_that_lost_its_latest_records_nothing_that_is_there_is_skipped"],
                "worker/test_intake": ["an_offset_outside_the_log_stops_its_partition_and_never_jumps"],
                FAULTS: ["a_coordinator_that_is_not_ready_never_means_that_nothing_is_committed"],
            },
            NOT_GENUINE,
        ),
    },
    "Handlers": {
        17: Scenario(
            "a transient error",
            {HANDLERS: ["errors_poison_and_rejections_end_where_they_should_and_hold_nobody_up"]},
        ),
        18: Scenario(
            "a permanent error: retries, dead letter, others go on",
            {
                HANDLERS: ["errors_poison_and_rejections_end_where_they_should_and_hold_nobody_up"],
                DELIVERY: ["a_permanent_error_ends_in_the_dead_letter_topic_with_its_cause"],
                "runner/test_retries": ["a_retry_holds_its_key_and_nothing_else"],
            },
        ),
        19: Scenario(
            "the broker of the dead letters is away",
            {
                OUTAGES: [
                    "a_broker_that_is_killed_under_load_loses_nothing",
                    "every_broker_of_a_cluster_goes_and_comes_back_under_load",
                ],
                DELIVERY: ["a_dead_letter_broker_that_is_away_is_waited_for"],
            },
        ),
        20: Scenario(
            "the dead-letter limit",
            {HANDLERS: ["a_group_that_stops_drops_nothing_and_goes_on_when_it_may"]},
        ),
        21: Scenario(
            "no dead-letter topic",
            {HANDLERS: ["a_group_that_stops_drops_nothing_and_goes_on_when_it_may"]},
        ),
        22: Scenario(
            "a handler raises what is no `Exception`",
            {
                CRASHES: [
                    "what_is_no_exception_ends_the_process_and_settles_nothing",
                    "an_exit_from_inside_a_handler_takes_outputs_on_their_way_with_it_and_they_come_again",
                ],
                DELIVERY: ["what_is_no_exception_settles_nothing_and_reaches_whoever_waits"],
            },
        ),
        23: Scenario(
            "a handler never returns",
            {CRASHES: ["handlers_that_never_return_are_cut_off_and_run_again"]},
        ),
        24: Scenario(
            "a handler longer than the session",
            {CRASHES: ["a_handler_that_outlasts_the_session_runs_once"]},
        ),
        25: Scenario(
            "a handler blocks the loop",
            {CRASHES: ["a_handler_that_blocks_the_loop_beyond_the_session_keeps_its_partitions"]},
        ),
        26: Scenario(
            "late answers",
            {"worker/test_rebalance": ["a_late_result_of_a_thread_settles_nothing"]},
            "there are none to give: an outcome is what a handler returns; see 9",
        ),
    },
    "Poison": {
        27: Scenario(
            "bytes that do not decode",
            {
                HANDLERS: ["errors_poison_and_rejections_end_where_they_should_and_hold_nobody_up"],
                DELIVERY: ["poison_in_a_batch_is_isolated_and_the_rest_is_done_in_order"],
                "serde/test_properties": ["random_bytes_raise_nothing_but_decode_errors"],
            },
        ),
        28: Scenario(
            "odd headers, keys, sizes, tombstones",
            {READING: ["records_come_in_order_with_everything_they_were_published_with"]},
            READ,
        ),
        29: Scenario(
            "a corrupt batch, an unknown codec",
            {
                FAULTS: ["an_unreadable_batch_stops_its_partition_after_everything_before_it"],
                "worker/test_intake": ["an_unreadable_partition_stops_alone_and_loudly"],
            },
            READ + "; no genuine broker corrupts on demand",
        ),
        30: Scenario(
            "deep nesting, huge numbers, NaN",
            {"serde/test_decoding": ["a_refusal_says_why"]},
            DECODED,
        ),
        31: Scenario(
            "a filter cannot be asked",
            {
                BROKERS: ["a_filter_that_must_be_asked_again_is_no_mismatch"],
                DELIVERY: ["a_filter_that_must_be_asked_again_later_holds_its_record_only"],
            },
        ),
        32: Scenario(
            "of two handlers one fails",
            {
                BROKERS: ["of_several_handlers_in_a_group_only_the_one_that_failed_runs_again"],
                DELIVERY: ["of_several_handlers_only_the_one_that_failed_runs_again"],
            },
            "handlers of batches do not share a group",
        ),
    },
    "Rebalances": {
        33: Scenario(
            "members come and go under load",
            {
                REBALANCES: [
                    "members_that_come_and_go_under_load_lose_and_repeat_nothing",
                    "forty_changes_of_membership_lose_and_repeat_nothing",
                    "rolling_restarts_under_slow_handlers_repeat_nothing_and_wait_for_nobody_who_is_gone",
                ],
                ONCE: ["outputs_are_visible_once_although_members_come_and_go"],
                SECOND_ENGINE: ["members_that_come_and_go_under_load_lose_and_repeat_nothing"],
            },
        ),
        34: Scenario(
            "slow work when partitions are revoked",
            {
                REBALANCES: [
                    "slow_work_within_the_budget_is_finished_committed_and_not_repeated",
                    "slow_work_beyond_the_budget_goes_to_the_next_owner",
                ]
            },
        ),
        35: Scenario(
            "membership is lost",
            {
                CRASHES: ["a_worker_alone_that_lost_its_session_begins_anew"],
                "worker/test_rebalance": ["lost_partitions_commit_nothing_and_discard_what_is_in_flight"],
            },
        ),
        36: Scenario(
            "a partition comes straight back",
            {REBALANCES: ["partitions_that_come_straight_back_run_nothing_twice"]},
        ),
        37: Scenario(
            "cooperative rebalances",
            {
                SECOND_ENGINE: ["members_that_come_and_go_under_load_lose_and_repeat_nothing"],
                "transports/test_librdkafka": ["kept_partitions_go_on_while_another_member_joins_and_leaves"],
                "worker/test_rebalance": ["a_partition_that_stays_goes_on_while_another_is_taken_away_and_comes_back"],
            },
            "of librdkafka, KIP-848 too; aiokafka's are eager, and what is kept comes straight back",
        ),
        38: Scenario(
            "a static member restarts",
            {REBALANCES: ["a_static_member_that_restarts_in_time_causes_no_rebalance"]},
        ),
        39: Scenario(
            "zombie",
            {
                CRASHES: ["a_frozen_worker_that_thaws_commits_nothing_of_what_others_have"],
                ONCE: ["outputs_of_a_frozen_worker_that_thaws_are_visible_once"],
            },
        ),
        40: Scenario(
            "retries and dead letters of a revoked partition",
            {REBALANCES: ["retries_and_dead_letters_of_a_revoked_partition_go_on_at_the_next_owner"]},
        ),
        41: Scenario(
            "a subscription by pattern",
            {
                "transports/test_groups": ["a_pattern_finds_topics_that_appear_later"],
                "worker/test_rebalance": ["a_pattern_takes_in_topics_that_are_made_while_it_runs_but_no_dead_letters"],
            },
            "a subscription knows no ordering",
        ),
        42: Scenario(
            "two apps in one group",
            {"worker/test_rebalance": ["two_apps_with_different_topics_share_a_group"]},
            "a subscription knows no ordering",
        ),
    },
    "Flow": {
        43: Scenario(
            "one slow key",
            {
                HANDLERS: ["one_key_that_hangs_among_thousands_holds_up_nobody_else"],
                "worker/test_intake": ["a_slow_key_among_many_does_not_hold_the_others"],
            },
            HELD_UP,
        ),
        44: Scenario(
            "memory is bounded",
            {
                BROKERS: ["what_is_in_flight_is_bounded_while_handlers_hang"],
                "worker/test_intake": ["what_is_in_flight_is_bounded_while_a_handler_hangs"],
            },
        ),
        45: Scenario(
            "one partition is held back",
            {
                HANDLERS: ["a_partition_that_hangs_does_not_hold_up_the_others"],
                "worker/test_intake": ["a_partition_that_hangs_is_held_back_while_the_others_go_on"],
                READING: ["partitions_that_are_not_named_keep_what_was_prefetched"],
            },
        ),
        46: Scenario("a fetch is cancelled", {READING: ["cancelling_fetches_loses_nothing"]}, READ),
        47: Scenario("the clock jumps", {CRASHES: ["a_wall_clock_that_jumps_by_an_hour_harms_nothing"]}),
        48: Scenario("a neighbour takes the processor", {CRASHES: ["a_machine_that_is_too_busy_only_takes_longer"]}),
    },
    "Brokers and networks": {
        49: Scenario(
            "coordinator and leader restart",
            {
                OUTAGES: [
                    "a_broker_that_is_killed_under_load_loses_nothing",
                    "a_broker_that_freezes_and_thaws_loses_nothing",
                    "every_broker_of_a_cluster_goes_and_comes_back_under_load",
                ],
                ONCE: [
                    "outputs_are_visible_once_although_the_broker_is_killed",
                    "outputs_are_visible_once_although_every_broker_of_a_cluster_is_killed",
                ],
            },
        ),
        50: Scenario(
            "a full outage",
            {
                OUTAGES: [
                    "an_outage_ends_without_a_restart_of_the_workers",
                    "an_outage_of_a_whole_cluster_ends_without_a_restart_of_the_workers",
                ]
            },
        ),
        51: Scenario("a network that is cut one way", {OUTAGES: ["a_network_that_is_cut_one_way_loses_nothing"]}),
        52: Scenario("a broker far away, with loss", {OUTAGES: ["a_far_away_broker_costs_no_throughput"]}),
        53: Scenario(
            "tokens expire and change",
            {
                "transports/test_authentication": [
                    "sessions_are_renewed_before_the_broker_ends_them",
                    "every_mechanism_outlives_its_sessions_on_apache_kafka",
                ]
            },
            "a connection knows no ordering",
        ),
        54: Scenario(
            "throttling",
            {
                OUTAGES: [
                    "a_broker_that_throttles_only_takes_longer",
                    "the_quotas_of_kafka_only_cost_time",
                    "a_narrow_network_only_takes_longer",
                ]
            },
        ),
        55: Scenario("the fetch task dies in silence", {OUTAGES: ["a_fetch_task_that_dies_in_silence_is_replaced"]}),
    },
    "Life": {
        56: Scenario(
            "SIGTERM under load",
            {SHUTDOWN: ["a_stop_under_load_finishes_what_runs_commits_it_and_repeats_nothing"]},
        ),
        57: Scenario(
            "SIGTERM during start-up, rebalance, outage",
            {
                SHUTDOWN: [
                    "a_stop_while_it_starts_is_obeyed",
                    "a_stop_in_the_middle_of_a_rebalance_is_obeyed",
                    "a_stop_while_the_broker_is_away_is_obeyed_and_nothing_is_lost",
                ]
            },
        ),
        58: Scenario(
            "a second SIGTERM",
            {
                SHUTDOWN: [
                    "a_second_signal_ends_it_at_once_and_commits_nothing_early",
                    "a_second_signal_reaches_a_worker_whose_loop_is_blocked",
                ]
            },
        ),
        59: Scenario(
            "a start-up hook fails",
            {"worker/test_lifetime": ["a_start_up_hook_that_fails_consumes_nothing_and_closes_everything"]},
            "no broker is asked, no record is read",
        ),
        60: Scenario(
            "embedded in other programs",
            {
                "worker/test_embedding": [
                    "starts_and_stops_on_a_real_broker_leave_no_task_thread_or_socket",
                    "uvicorn_starts_and_stops_a_worker_with_its_application",
                    "a_host_that_ends_its_loop_without_stopping_the_worker_still_ends",
                ],
                "worker/test_lifetime": ["two_apps_run_in_one_loop"],
            },
            "a host knows no ordering",
        ),
    },
    "Publishing": {
        61: Scenario(
            "outputs before offsets",
            {
                ONCE: ["outputs_of_killed_workers_are_visible_once"],
                "pipeline/test_handling": ["what_a_handler_returns_is_published_before_its_record_is_done"],
            },
        ),
        62: Scenario(
            "what cannot be published is a failure",
            {
                ONCE_BROKERS: ["an_output_that_is_too_large_makes_its_event_a_dead_letter"],
                DELIVERY: ["what_cannot_be_published_is_the_handlers_failure"],
            },
            "publishing knows no ordering",
        ),
        63: Scenario(
            "transactions",
            {
                ONCE: [
                    "outputs_of_killed_workers_are_visible_once",
                    "outputs_are_visible_once_although_members_come_and_go",
                    "outputs_of_a_frozen_worker_that_thaws_are_visible_once",
                    "outputs_are_visible_once_although_the_broker_is_killed",
                    "outputs_are_visible_once_although_every_broker_of_a_cluster_is_killed",
                ],
                ONCE_PROCESSES: ["deaths_in_the_middle_of_transactions_repeat_nothing"],
                ONCE_BROKERS: ["errors_of_a_broker_repeat_nothing", "answers_that_are_lost_repeat_nothing"],
            },
        ),
    },
    "Lambda": {
        64: Scenario(
            "worker and trigger do the same",
            {"triggers/test_parity": ["it_makes_no_difference_what_runs_a_handler"]},
            "the trigger reads no broker",
        ),
        65: Scenario(
            "exactly the failed items",
            {"triggers/test_handler": ["a_failed_record_is_reported_with_what_must_stay_behind_it"]},
            "the trigger reads no broker",
        ),
        66: Scenario(
            "success is never reported on failure",
            {"triggers/test_handler": ["without_partial_failures_the_invocation_fails_as_a_whole"]},
            "the trigger reads no broker",
        ),
    },
}


# ── what pytest collects ──────────────────────────────────────────────────────────────────────────────────────────────


class Collected(NamedTuple):
    """One test with its parameters.

    Attributes:
        function: File below `tests/` without its ending, `::`, name without `test_`.
        broker: `embedded`, `kafka`, or `process` for one that runs without a broker of its own.
        mode: Of `MODES`, or empty for one that is not parametrised by it.
        slow: Whether the quick suite leaves it out.
    """

    function: str
    broker: str
    mode: str
    slow: bool


ON_BROKERS = ("faults/", ONCE_BROKERS, ONCE_PROCESSES, BROKERS, FAULTS, "worker/test_embedding")
"""Files whose tests run on the embedded broker unless they say Kafka."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print what was collected, as a plugin of the pytest that `collect` starts."""
    for item in session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        file = item.path.relative_to(ROOT / "tests").with_suffix("").as_posix()
        mode = parameters.get("mode", parameters.get("ordering", ""))
        if item.get_closest_marker("kafka"):
            broker = "kafka"
        elif "embedded" in parameters.values() or ("memory" not in parameters.values() and file.startswith(ON_BROKERS)):
            broker = "embedded"
        else:
            broker = "process"
        name = getattr(item, "originalname", item.name).removeprefix("test_")
        slow = item.get_closest_marker("slow") is not None
        print("\n" + json.dumps([f"{file}::{name}", broker, mode if mode in MODES else "", slow]))


def collect() -> list[Collected]:
    """Ask pytest for the tests of all scenarios."""
    files = sorted({f"tests/{file}.py" for scenario in _all().values() for file in scenario.tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "tests.faults.scenarios", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [Collected(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith('["')]
    if not found:
        raise RuntimeError(f"nothing was collected: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return found


def missing(collected: Iterable[Collected]) -> list[str]:
    """Return the tests of scenarios that do not exist."""
    there = {each.function for each in collected}
    return [function for scenario in _all().values() for function in _functions(scenario) if function not in there]


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(collected: Sequence[Collected]) -> str:
    """Return the scenarios as Markdown."""
    by_function: defaultdict[str, list[Collected]] = defaultdict(list)
    for each in collected:
        by_function[each.function].append(each)
    lines = ["| # | scenario | embedded | Kafka | in process | tests |", "|---|---|---|---|---|---|"]
    for title, scenarios in SCENARIOS.items():
        lines.append(f"| | **{title}** | | | | |")
        for number, scenario in scenarios.items():
            tests = [each for function in _functions(scenario) for each in by_function[function]]
            cells = [
                _cell(each for each in tests if each.broker == broker) for broker in ("embedded", "kafka", "process")
            ]
            names = "; ".join(f"`{file}` {', '.join(functions)}" for file, functions in scenario.tests.items())
            note = f" ({scenario.note})" if scenario.note else ""
            lines.append(f"| {number} | {scenario.title}{note} | {' | '.join(cells)} | {names} |")
    return "\n".join(lines) + "\n"


def _cell(tests: Iterable[Collected]) -> str:
    """Spell the modes: a capital for one that the quick suite runs; a dot or a ring for tests that know none."""
    quick: dict[str, bool] = {}
    for each in tests:
        quick[each.mode] = quick.get(each.mode, False) or not each.slow
    dead_letters = "".join(mode[0].upper() if quick[mode] else mode[0] for mode in MODES if mode in quick)
    return dead_letters or {True: "●", False: "○", None: "–"}[quick.get("")]


def _all() -> dict[int, Scenario]:
    return {number: scenario for group in SCENARIOS.values() for number, scenario in group.items()}


def _functions(scenario: Scenario) -> Iterator[str]:
    for file, functions in scenario.tests.items():
        for function in functions:
            yield f"{file}::{function}"


def within(text: str, table: str) -> str:
    """Return the README with its table replaced."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    # as the module that pytest loads, too: its classes must be the same
    README.write_text(within(README.read_text(encoding="utf-8"), table(collect())), encoding="utf-8")
