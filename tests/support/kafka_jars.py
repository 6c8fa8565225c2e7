"""The jars of a genuine Apache Kafka, fetched once by Maven and kept outside the tree."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

POM = Path(__file__).resolve().parents[2] / "scripts" / "kafka.d" / "pom.xml"

# A wedged download must not hold a test session for ever; a cold cache takes half a minute.
FETCH_DEADLINE = 600.0


class KafkaUnavailable(Exception):
    """Apache Kafka cannot run on this machine; the message says what to install."""


def kafka_version() -> str:
    """Return the version that the POM pins, for example `4.4.0`."""
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)</version>", POM.read_text())
    assert found is not None, f"{POM} names no version of kafka_2.13"
    return found[1]


def cache_directory() -> Path:
    """Return where Octopus keeps what its tests fetch (`$XDG_CACHE_HOME/octopus`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octopus"


def jars_directory() -> Path:
    """Return the folder of the jars; another POM means another folder, so nothing ever goes stale."""
    return cache_directory() / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def require_java() -> str:
    """Return the path of `java`.

    Raises:
        KafkaUnavailable: There is no Java, or it is older than 17.
    """
    java = shutil.which("java")
    if java is None:
        raise KafkaUnavailable(
            "Apache Kafka needs Java: install a JDK 17 or newer (openjdk-17-jdk-headless on Debian)."
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < 17:
        first = said.strip().splitlines()[0] if said.strip() else "nothing"
        raise KafkaUnavailable(
            f"Apache Kafka needs Java 17 or newer, and `java -version` says {first!r}: install a newer JDK."
        )
    return java


def fetch_jars() -> Path:
    """Return the folder of the jars, filling it first when it is not there.

    Raises:
        KafkaUnavailable: Maven is missing or could not fetch them.
    """
    jars = jars_directory()
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("The jars of Apache Kafka are fetched by Maven: install Maven (maven on Debian).")
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers may ask at once
        if jars.is_dir():
            return jars
        partial = jars.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_DEADLINE, check=False)
        except subprocess.TimeoutExpired as error:
            raise KafkaUnavailable(f"Maven did not fetch Apache Kafka within {FETCH_DEADLINE:.0f} s.") from error
        if done.returncode != 0:
            raise KafkaUnavailable(f"Maven could not fetch Apache Kafka: {(done.stdout + done.stderr).strip()[-400:]}")
        partial.rename(jars)  # last and atomic: a folder of this name is always whole
    return jars
