"""The Java client, the reference that the protocol's authors ship; its checks are in JavaClient.java."""

import fcntl
import hashlib
import subprocess
from pathlib import Path

from tests.broker.clients.checking import Target, check, fresh
from tests.support.kafka_jars import cache_directory, fetch_jars, require_java

SOURCE = Path(__file__).with_name("JavaClient.java")


@check(limit=60)
def administers_topics(target: Target) -> None:
    _java(target, "administersTopics")


@check(limit=60, quick_on_kafka=True)
def produces_and_consumes_every_codec(target: Target) -> None:
    _java(target, "producesAndConsumesEveryCodec")


@check(limit=70, races=True, quick_on_kafka=True)
def shares_a_group(target: Target) -> None:
    _java(target, "sharesAGroup")


@check(limit=60, races=True, quick_on_kafka=True)
def commits_and_aborts_transactions(target: Target) -> None:
    _java(target, "commitsAndAbortsTransactions")


@check(limit=60, races=True)
def commits_offsets_in_transactions(target: Target) -> None:
    _java(target, "commitsOffsetsInTransactions")


@check(limit=60, races=True)
def commits_offsets_of_a_member_in_transactions(target: Target) -> None:
    """With the member's id and generation (TxnOffsetCommit 3)."""
    _java(target, "commitsOffsetsOfAMemberInTransactions")


def _java(target: Target, check: str) -> None:
    """Run a check; it exits with an exception's stack trace when it fails."""
    options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    path = f"{_compiled()}:{fetch_jars()}/*"
    subprocess.run(
        [require_java(), *options, "-cp", path, "JavaClient", check, target.bootstrap, fresh("java")], check=True
    )


def _compiled() -> Path:
    """Return the folder of the compiled checks, kept outside the tree by their hash."""
    classes = cache_directory() / f"java-client-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    with (cache_directory() / "java-client.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers may ask at once
        if not (classes / "complete").exists():
            jars = f"{fetch_jars()}/*"
            subprocess.run(["javac", "-d", str(classes), "-cp", jars, str(SOURCE)], check=True)
            (classes / "complete").touch()
    return classes
