"""What a mistake is answered with: one sentence that says what is wrong and what to do, whatever the mistake."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octopus.transports.kafka import greeting
from tests.cli.conftest import Octopus, Start

Write = Callable[..., Path]

NONE = "is no address of a broker"


@pytest.mark.parametrize(
    ("brokers", "sentence"),
    [
        (
            "h:notaport",
            f"'h:notaport' {NONE}: 'notaport' is no port (1 to 65535). Write host:port, as in localhost:9092",
        ),
        ("h:99999", f"'h:99999' {NONE}: '99999' is no port"),
        ("h:0", f"'h:0' {NONE}: '0' is no port"),
        ("h:", f"'h:' {NONE}: '' is no port"),
        (":9092", f"':9092' {NONE}: there is no host in it"),
        ("http://h:9092", f"'http://h:9092' {NONE}: Kafka's protocol has no http://"),
        ("kafka://h:x", f"'kafka://h:x' {NONE}: 'x' is no port"),
        ("h:9092/topic", f"'h:9092/topic' {NONE}: there is a path in it"),
        ("a b:9092", f"'a b:9092' {NONE}: there is a space in it"),
        ("h:1:2", f"'h:1:2' {NONE}: it has two ports"),
        ("[::1:9092", f"'[::1:9092' {NONE}: an IPv6 address stands in brackets"),
        ("good:9092,h:bad", f"'h:bad' {NONE}"),
        ("", "--brokers is empty, and names none: leave it out for the embedded broker."),
        (" ", "brokers is ' ', which names none"),
        (",", "brokers is ',', which names none"),
    ],
    ids=repr,
)
def test_an_address_that_is_none_is_refused_where_it_was_written(octopus: Octopus, brokers: str, sentence: str) -> None:
    result = octopus("topics", brokers=brokers)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert sentence in result.err


@pytest.mark.parametrize("address", ["[::1]:1", "127.0.0.1:1", "kafka://127.0.0.1:1", "127.0.0.1:1, 127.0.0.1:2"])
def test_an_address_that_is_one_is_tried(octopus: Octopus, address: str) -> None:
    assert octopus("topics", brokers=address).code == 3


@pytest.fixture
def speak() -> Iterator[Callable[[bytes, bytes], str]]:
    """Return the address of a service that answers once it has read what it waits for."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(waits_for: bytes, answer: bytes) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return  # the test has ended
            with peer:
                heard = b""
                while waits_for not in heard and (more := peer.recv(4096)):
                    heard += more
                peer.sendall(answer)
                while peer.recv(4096):
                    pass  # as long as the other side waits: it must not learn from an end that there is nothing

    threads = []

    def begin(waits_for: bytes, answer: bytes) -> str:
        threads.append(threading.Thread(target=serve, args=(waits_for, answer)))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield begin
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("waits_for", "answer", "what"),
    [
        (b"\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", "it speaks HTTP, not Kafka's protocol"),
        (b"\n", b"<!DOCTYPE HTML>", "it speaks HTTP, not Kafka's protocol"),
        (b"", b"SSH-2.0-OpenSSH_9.6\r\n", "it speaks SSH, not Kafka's protocol"),
        (b"", b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS (set security.protocol to SSL or SASL_SSL), not Kafka's"),
        (b"\r\n", b"-ERR unknown command\r\n", "it does not speak Kafka's protocol (b'-ERR')"),
        (b"", b"\x4a\x00\x00\x00\x0a8.4.0", "it does not speak Kafka's protocol"),
    ],
    ids=["HTTP", "HTTP 0.9", "SSH", "TLS", "Redis", "MySQL"],
)
def test_a_port_that_does_not_speak_kafka_is_said_at_once(
    octopus: Octopus, speak: Callable[[bytes, bytes], str], waits_for: bytes, answer: bytes, what: str
) -> None:
    # A time-out far beyond that of a test: who waits for it fails.
    result = octopus("topics", "--config", "producer.request_timeout=1h", brokers=speak(waits_for, answer))
    assert result.code == 3
    assert f"failed while connecting: {what}" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "accepts connections but does not answer as Kafka does (nothing came for 0.3 s)"),
        (("--config=security.protocol=SSL",), "does not answer; perhaps it does not speak TLS, which SSL asks for"),
    ],
    ids=["plain", "TLS is asked for"],
)
@pytest.mark.parametrize(
    "verb", [("topics",), ("groups",), ("publish", "t", "1"), ("consume", "t", "--from", "earliest")]
)
def test_a_port_that_says_nothing_is_waited_for_aloud_and_not_for_long(
    octopus: Octopus,
    speak: Callable[[bytes, bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    verb: tuple[str, ...],
    arguments: tuple[str, ...],
    what: str,
) -> None:
    monkeypatch.setattr(greeting, "FIRST_ANSWER", 0.3)
    monkeypatch.setattr(greeting, "SAY_WAITING", 0.1)
    address = speak(b"nothing that anybody sends", b"")
    result = octopus(*verb, *arguments, "--config", "producer.request_timeout=1h", brokers=address)
    assert result.code == 3
    assert caplog.text.count(f"waiting for an answer of {address}, for up to 0 s") == 1
    assert f"failed while connecting: {address} {what}" in result.err


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_port_that_hangs_up_is_said_at_once(octopus: Octopus, protocol: str) -> None:
    def hang_up() -> None:
        with contextlib.suppress(OSError):  # the test has ended
            while True:
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=hang_up)
        thread.start()
        result = octopus("topics", f"--config=security.protocol={protocol}", brokers=address)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert result.code == 3
    what = {
        "PLAINTEXT": "hangs up without an answer, as ports do that expect TLS (set security.protocol to SSL or SASL_SSL)",
        "SSL": "does not speak TLS, which SSL asks for",
    }
    assert f"{address} {what[protocol]}" in result.err


def test_a_port_that_answers_in_plain_text_where_tls_is_asked_for_is_named(
    octopus: Octopus, speak: Callable[[bytes, bytes], str]
) -> None:
    address = speak(b"\x16", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    result = octopus("topics", "--config=security.protocol=SSL", brokers=address)
    assert result.code == 3
    assert f"{address} does not speak TLS, which SSL asks for" in result.err


@pytest.mark.parametrize("below", ["", "below"], ids=["the directory", "one above it"])
@pytest.mark.parametrize(
    "arguments",
    [("broker", "start", "--dir", "FILE"), ("broker", "start", "--dir", "FILE", "--foreground"), ("topics",)],
    ids=["start", "foreground", "variable"],
)
def test_a_file_where_records_are_to_be_kept_is_named(
    start: Start, nowhere: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], below: str
) -> None:
    (nowhere / "file").touch()
    directory = str(nowhere / "file" / below)
    given = [directory if each == "FILE" else each for each in arguments]
    settings = [] if "--dir" in arguments else [f"--config=broker.directory={directory}"]
    result = start(*given, *settings, brokers=None).end()
    assert result.code == 2
    assert f"'{nowhere / 'file'}' is a file, not a directory. Name another directory." in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("foreground", [(), ("--foreground",)], ids=["background", "foreground"])
def test_a_port_that_is_taken_is_named(start: Start, nowhere: Path, foreground: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = start("broker", "start", "--port", str(port), "--dir", "d", *foreground, brokers=None).end()
    assert result.code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use. Choose another port or host" in result.err
    assert result.err.count("\n") == 1


APP = "from octopus import Octopus\napp = Octopus('x')\n@app.every(60)\nasync def tick(): pass\n"


@pytest.mark.parametrize(
    "target", ["dir/file.py", "dir/file.py:app", "./pkg", "pkg/", "./pkg:app", "pkg/__init__.py", "pkg"]
)
def test_a_path_names_an_app_as_a_module_does(start: Start, nowhere: Path, target: str) -> None:
    for path in (nowhere / "dir" / "file.py", nowhere / "pkg" / "__init__.py"):
        path.parent.mkdir()
        path.write_text(APP)
    assert start("run", target, "--drain").end().code == 0


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("./dir", "'dir' is a directory, and no package: it has no __init__.py. Name a file in it: dir/file.py."),
        ("empty/", "'empty' is a directory, and no package: it has no __init__.py. There is no Python file in it."),
        ("dir/file", "There is no file 'dir/file'. Did you mean dir/file.py?"),
        ("dir/fiel.py:app", "There is no file 'dir/fiel.py'. Did you mean dir/file.py?"),
        ("none/file.py:app", "There is no file 'none/file.py'."),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_path_that_leads_nowhere_is_said(start: Start, nowhere: Path, target: str, sentence: str) -> None:
    (nowhere / "empty").mkdir()
    (nowhere / "dir").mkdir()
    (nowhere / "dir" / "file.py").write_text(APP)
    result = start("run", target).end()
    assert (result.code, result.err) == (2, f"error: {sentence}{os.linesep}")


@pytest.mark.parametrize(
    ("file", "variables", "arguments", "place"),
    [
        ("octopus.toml", {}, (), "worker.drain_timeout in octopus.toml"),
        ("pyproject.toml", {}, (), "worker.drain_timeout in pyproject.toml"),
        ("", {"OCTOPUS_WORKER__DRAIN_TIMEOUT": "soon"}, (), "the variable OCTOPUS_WORKER__DRAIN_TIMEOUT"),
        ("", {}, ("--config", "worker.drain_timeout=soon"), "--config worker.drain_timeout"),
        (
            "octopus.toml",
            {"OCTOPUS_WORKER__DRAIN_TIMEOUT": "5s"},
            ("--config", "worker.drain_timeout=soon"),
            "--config worker",
        ),
        ("octopus.toml", {"OCTOPUS_WORKER__DRAIN_TIMEOUT": "soon"}, (), "the variable OCTOPUS_WORKER__DRAIN_TIMEOUT"),
    ],
    ids=["file", "pyproject", "variable", "option", "option over others", "variable over file"],
)
def test_a_setting_that_cannot_be_is_said_with_the_place_where_it_stands(
    start: Start,
    nowhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    variables: dict[str, str],
    arguments: tuple[str, ...],
    place: str,
) -> None:
    if file:
        table = "tool.octopus.worker" if file == "pyproject.toml" else "worker"
        (nowhere / file).write_text(f'[{table}]\ndrain_timeout = "soon"\n')
    result = start("topics", *arguments, variables=variables).end()
    assert result.code == 2
    assert "worker.drain_timeout is 'soon'; expected seconds" in result.err
    assert f" It comes from {place}" in result.err


@pytest.mark.parametrize(
    ("text", "variables", "arguments", "place"),
    [
        ('brokers = "h:x"', {}, (), "brokers in octopus.toml"),
        ("", {"OCTOPUS_BROKERS": "h:x"}, (), "the variable OCTOPUS_BROKERS"),
        ("", {}, ("--brokers", "h:x"), "--brokers"),
        ("", {}, ("--config", "brokers=h:x"), "--config brokers"),
    ],
    ids=["file", "variable", "brokers", "config"],
)
def test_an_address_that_is_none_is_said_with_the_place_where_it_stands(
    start: Start, nowhere: Path, text: str, variables: dict[str, str], arguments: tuple[str, ...], place: str
) -> None:
    (nowhere / "octopus.toml").write_text(text)
    result = start("topics", *arguments, brokers=None, variables=variables).end()
    assert result.code == 2
    assert result.err.startswith("error: 'h:x' is no address of a broker")
    assert result.err.endswith(f" It comes from {place}.\n")


def test_settings_that_do_not_go_together_are_said_with_all_the_places_where_they_stand(
    start: Start, nowhere: Path
) -> None:
    (nowhere / "octopus.toml").write_text('security.mechanism = "PLAIN"')
    variables = {"OCTOPUS_SECURITY__USERNAME": "u", "OCTOPUS_SECURITY__REGION": "r"}
    result = start("topics", "--config", "security.protocol=SASL_SSL", variables=variables).end()
    assert result.code == 2
    assert result.err == (
        "error: In security: mechanism is PLAIN; it needs username and password. It comes from --config security.protocol and "
        "the variables OCTOPUS_SECURITY__REGION, OCTOPUS_SECURITY__USERNAME and security in octopus.toml.\n"
    )


def test_a_setting_in_the_code_of_an_app_is_said_to_stand_there(start: Start, write_app: Write) -> None:
    write_app("from octopus import Octopus\napp = Octopus('x', settings={'worker': {'drain_timeout': 'soon'}})\n")
    result = start("run").end()
    assert result.code == 2
    assert result.err.endswith(" It comes from worker.drain_timeout in the app's code.\n")


SECRETS = "[security]\nusername = 'u'\npassword = 'p'\n"


@pytest.mark.parametrize(
    ("file", "mode", "text", "what"),
    [
        ("octopus.toml", 0o644, SECRETS, "octopus.toml holds security.password"),
        ("octopus.toml", 0o640, SECRETS, "octopus.toml holds security.password"),
        ("pyproject.toml", 0o644, SECRETS.replace("[", "[tool.octopus."), "pyproject.toml holds security.password"),
        ("token", 0o644, "t", "token holds the token"),
        ("octopus.toml", 0o600, SECRETS, None),
        ("octopus.toml", 0o644, "[security]\nusername = 'u'\n[worker]\n", None),
    ],
    ids=["others", "the group", "pyproject", "a token file", "nobody", "no secret"],
)
def test_a_secret_in_a_file_that_others_may_read_is_warned_of(
    octopus: Octopus, nowhere: Path, file: str, mode: int, text: str, what: str | None
) -> None:
    (nowhere / file).write_text(text)
    (nowhere / file).chmod(mode)
    token = ["--config", "security.token_file=token"] if file == "token" else []
    findings = octopus("doctor", "--json", *token, brokers="127.0.0.1:1").json["checks"]
    told = [(each["text"], each["mend"], each["state"]) for each in findings if each["check"] == "secrets"]
    wanted = f"{what}, and others on this machine may read it (mode {mode:o})"
    assert told == ([(wanted, f"chmod 600 {file}", "doubtful")] if what else [])


NO_NAME = "'my topic' is not a topic name: 1 to 249 letters, digits, '.', '_' or '-'."


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "my topic", "1"),
        ("topics", "create", "my topic"),
        ("replay", "TOPIC", "--from", "earliest", "--into", "my topic"),
        ("dead-letters", "replay", "TOPIC", "--to", "my topic"),
        ("watch", ".", "--to", "my topic"),
        ("run", "--watch", ".=my topic"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_no_topic_name_is_refused_where_events_would_go_to(
    octopus: Octopus, topic: str, write_app: Write, arguments: tuple[str, ...]
) -> None:
    write_app(APP)
    octopus("publish", topic, "1")
    result = octopus(*(topic if each == "TOPIC" else each for each in arguments))
    assert (result.code, result.err) == (2, f"error: {NO_NAME}\n")


@pytest.mark.parametrize(
    "verb", [("topics", "show"), ("topics", "delete"), ("consume",), ("dead-letters", "list")], ids=" ".join
)
def test_a_topic_that_cannot_be_is_one_that_is_not_there(octopus: Octopus, verb: tuple[str, ...]) -> None:
    result = octopus(*verb, "my topic")
    assert result.code == 3
    assert result.err.startswith("error: There is no topic 'my topic' on ")
    assert result.err.count("\n") == 1


SLIPS = {
    "@app.on": '@on stands above handle without a topic: write @app.on("…") with the topic that it reads.',
    "@app.every": "@every stands above handle without an interval: write @app.every(5) for every five seconds.",
    "@app.every('5s')": "every('5s'): durations are seconds or a timedelta: every(5).",
    "@app.every(0)": "every(0): the interval must be longer than nothing.",
    "@app.on('my topic')": NO_NAME,
    "@app.on('t', to='my topic')": f"handler 'handle': to={NO_NAME}",
    "@app.on('t', dead_letter='my topic')": f"handler 'handle': dead_letter={NO_NAME}",
    "@app.on('t', timeout='10s')": "timeout='10s': durations are seconds or a timedelta: timeout=10.",
    "@app.on('t', batch=10)": "Handler handle, parameter value: with batch= it gets a list, so annotate list[int].",
}


@pytest.mark.parametrize(("decorator", "sentence"), SLIPS.items(), ids=SLIPS)
def test_a_slip_of_the_first_day_is_said_with_file_and_line(
    octopus: Octopus, write_app: Write, decorator: str, sentence: str
) -> None:
    source = (
        f"from octopus import Octopus\napp = Octopus('x')\n\n{decorator}\nasync def handle(value: int) -> None: ...\n"
    )
    path = write_app(source, "slipped.py")
    result = octopus("run", "slipped.py:app", "--drain")
    assert result.code == 2
    assert result.err.startswith(f"error: slipped.py cannot be imported at {path}:4: {sentence}")
    assert result.err.endswith(" --traceback shows more.\n")


LIFESPANS = {
    "raises": ("    raise OSError('no database')\n    yield", "as it began", 5, "OSError: no database"),
    "raises at its end": ("    yield\n    raise OSError('no database')", "as it ended", 6, "OSError: no database"),
    "deeper": ("    open('/nowhere/at/all')\n    yield", "as it began", 5, "FileNotFoundError: "),
}


@pytest.mark.parametrize(("body", "when", "line", "reason"), LIFESPANS.values(), ids=LIFESPANS)
def test_a_lifespan_that_raises_is_said_with_file_and_line(
    start: Start, write_app: Write, body: str, when: str, line: int, reason: str
) -> None:
    path = write_app(
        "from contextlib import asynccontextmanager\nfrom octopus import Octopus\n@asynccontextmanager\n"
        f"async def lifespan(app):\n{body}\napp = Octopus('lab', lifespan=lifespan)\n"
        "@app.on('t')\nasync def handle(value: int) -> None: ...\n"
    )
    result = start("run", "app.py:app", "--drain", brokers="memory://lab").end()
    assert result.code == 1
    assert f"the lifespan of lab failed {when}, at {path}:{line}: {reason}" in " ".join(result.err.split())


def test_a_port_for_health_that_is_taken_is_named_and_the_worker_goes_on(start: Start, write_app: Write) -> None:
    write_app(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start("run", "--config", f"worker.health_port={port}")
        running.wait_for(f"no health endpoints on 127.0.0.1:{port}: ", "runs 1 timer")
        assert running.end(signal.SIGTERM).code == 0
