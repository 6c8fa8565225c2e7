"""Loading, merging and describing settings; secrets stay secret."""

import contextlib
import pickle
import subprocess
import sys
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus import config
from octopus.config import Secret, SecuritySettings, Settings, describe, from_environment, from_toml, load, merge
from octopus.config.units import duration, size
from octopus.errors import ConfigurationError


def setting(settings: Settings, path: str) -> Any:
    section, _, name = path.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, name)


def nested(path: str, value: Any) -> dict[str, Any]:
    section, _, name = path.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def test_nothing_set_works_on_a_laptop() -> None:
    settings = load({})

    assert settings == Settings()
    assert settings.brokers == ()
    assert settings.security.protocol == "PLAINTEXT"
    assert settings.security.mechanism is None


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        load({}).worker.commit_interval = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "given_value", "expected"),
    [
        ("app", "beamline", "beamline"),
        ("brokers", "a:9092, b:9092,", ("a:9092", "b:9092")),
        ("brokers", ["a:9092", "b:9092"], ("a:9092", "b:9092")),
        ("brokers", "", ()),
        ("brokers", [], ()),
        ("consumer.session_timeout", 20, 20.0),
        ("consumer.session_timeout", "20", 20.0),
        ("consumer.session_timeout", "1m", 60.0),
        ("worker.commit_every", "100", 100),
        ("consumer.fetch_max_wait", "250ms", 0.25),
        ("consumer.max_partition_fetch_bytes", "2 MiB", 2 * 1024 * 1024),
        ("consumer.group_instance_id", "none", None),
        ("producer.compression", "ZSTD", "zstd"),
        ("producer.compression", "none", "none"),
        ("security.protocol", "ssl", "SSL"),
        ("worker.dead_letter_limit", "none", None),
        ("worker.dead_letter_limit", None, None),
        ("broker.port", "0", 0),
        ("broker.retention", "30d", 30 * 86400.0),
        ("log.level", "DEBUG", "debug"),
        ("topics.create", "false", False),
        ("topics.create", True, True),
    ],
)
def test_values_are_read_as_people_write_them(path: str, given_value: Any, expected: Any) -> None:
    value = setting(load(nested(path, given_value)), path)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"broker_s": "a"}, "There is no setting broker_s. Did you mean brokers?"),
        (
            {"consumer": {"session_timout": 1}},
            "There is no setting consumer.session_timout. Did you mean session_timeout?",
        ),
        ({"zzz": 1}, "There is no setting zzz."),
        ({"worker": 5}, "worker is a table of settings (commit_interval, commit_every,"),
        ({"app": {"name": "x"}}, "app is {'name': 'x'}; expected text."),
        ({"app": 5}, "app is 5; expected text."),
        ({"brokers": 5}, "brokers is 5; expected a list of texts, or one text with commas."),
        ({"brokers": ["a", 5]}, "brokers is ['a', 5]; expected a list of texts, or one text with commas."),
        ({"brokers": {"a": 1}}, "brokers is {'a': 1}; expected a list of texts"),
        (
            {"worker": {"commit_interval": "soon"}},
            "worker.commit_interval is 'soon'; expected seconds as a number, or text such as '250ms', '10s', '5m', '2h', '7d'.",
        ),
        ({"worker": {"commit_interval": -1}}, "worker.commit_interval is -1; expected seconds"),
        ({"worker": {"commit_interval": True}}, "worker.commit_interval is True; expected seconds"),
        ({"worker": {"commit_interval": float("nan")}}, "worker.commit_interval is nan; expected seconds"),
        ({"worker": {"commit_interval": "5 parsecs"}}, "worker.commit_interval is '5 parsecs'; expected seconds"),
        ({"worker": {"commit_interval": [1]}}, "worker.commit_interval is [1]; expected seconds"),
        ({"worker": {"commit_interval": None}}, "worker.commit_interval is None; expected seconds"),
        (
            {"worker": {"in_flight_bytes": "64 MX"}},
            "worker.in_flight_bytes is '64 MX'; expected bytes as a whole number",
        ),
        ({"worker": {"in_flight_bytes": 0}}, "worker.in_flight_bytes is 0; expected bytes"),
        ({"worker": {"in_flight_bytes": "0.3 B"}}, "worker.in_flight_bytes is '0.3 B'; expected bytes"),
        ({"worker": {"commit_every": 0}}, "worker.commit_every is 0; expected a whole number, at least 1."),
        ({"worker": {"commit_every": 1.5}}, "worker.commit_every is 1.5; expected a whole number, at least 1."),
        ({"worker": {"dead_letter_limit": "few"}}, "worker.dead_letter_limit is 'few'; expected a whole number"),
        ({"broker": {"port": 65536}}, "broker.port is 65536; expected a whole number, at most 65535."),
        ({"log": {"level": "loud"}}, "log.level is 'loud'; expected one of debug, info, warning, error, critical."),
        ({"topics": {"create": "perhaps"}}, "topics.create is 'perhaps'; expected true or false."),
        ({"log": {"level": 3}}, "log.level is 3; expected one of debug"),
        ({"app": ["x" * 1000]}, "app is ['" + "x" * 97 + "…; expected text."),
    ],
    ids=lambda case: str(case)[:60],
)
def test_mistakes_say_where_what_and_what_is_expected(mapping: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(mapping)
    assert str(caught.value).startswith(sentence)


FULL = {"username": "me", "password": "hunter2"}


@pytest.mark.parametrize(
    ("given_settings", "protocol", "mechanism"),
    [
        ({}, "PLAINTEXT", None),
        ({"ca_file": "ca.pem"}, "SSL", None),
        ({"certificate_file": "me.pem"}, "SSL", None),
        (FULL, "SASL_SSL", "PLAIN"),
        (FULL | {"mechanism": "scram-sha-512"}, "SASL_SSL", "SCRAM-SHA-512"),
        (FULL | {"protocol": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT", "PLAIN"),
        ({"token": "hunter2"}, "SASL_SSL", "OAUTHBEARER"),
        ({"token_file": "token"}, "SASL_SSL", "OAUTHBEARER"),
        ({"mechanism": "OAUTHBEARER"}, "SASL_SSL", "OAUTHBEARER"),
        ({"region": "eu-central-1"}, "SASL_SSL", "AWS_MSK_IAM"),
        ({"protocol": "SSL"}, "SSL", None),
        ({"mechanism": "none", "region": "eu-central-1"}, "PLAINTEXT", None),
    ],
    ids=str,
)
def test_security_follows_from_what_is_given(
    given_settings: dict[str, Any], protocol: str, mechanism: str | None
) -> None:
    security = load({"security": given_settings}).security
    assert (security.protocol, security.mechanism) == (protocol, mechanism)


@pytest.mark.parametrize(
    ("given_settings", "sentence"),
    [
        (FULL | {"protocol": "PLAINTEXT"}, "protocol is PLAINTEXT, which has no mechanism PLAIN"),
        ({"protocol": "SASL_SSL"}, "protocol is SASL_SSL; it needs mechanism"),
        ({"token": "hunter2", "token_file": "t"}, "token and token_file exclude each other"),
        ({"username": "me"}, "mechanism is PLAIN; it needs username and password"),
        (
            {"mechanism": "SCRAM-SHA-256", "password": "hunter2"},
            "mechanism is SCRAM-SHA-256; it needs username and password",
        ),
        ({"password": "hunter2"}, "password is given without username"),
        ({"region": "eu", "protocol": "SASL_PLAINTEXT"}, "AWS_MSK_IAM needs SASL_SSL, not SASL_PLAINTEXT"),
        ({"key_file": "k"}, "key_file is given without certificate_file"),
        ({"ca_file": "k", "protocol": "PLAINTEXT"}, "protocol is PLAINTEXT, which uses no ca_file"),
    ],
    ids=str,
)
def test_security_that_contradicts_itself_is_refused(given_settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=f"In security: {sentence}") as caught:
        load({"security": given_settings})
    assert "hunter2" not in str(caught.value)


def test_secrets_show_in_no_representation() -> None:
    given_settings = {"username": "me", "password": "hunter2", "key_password": Secret("hunter2")}
    settings = load({"security": given_settings})
    password = settings.security.password

    assert password is not None
    shown = [
        repr(settings),
        str(settings),
        f"{settings}",
        repr(settings.security),
        repr(msgspec.structs.asdict(settings)),
    ]
    shown += [repr(password), str(password), f"{password}", f"{password!r:>20}", repr([password])]
    assert all("hunter2" not in text for text in shown)
    assert "********" in repr(settings)
    assert password.reveal() == "hunter2"
    for function in (msgspec.json.encode, msgspec.to_builtins):
        with pytest.raises(TypeError, match="Secret"):
            function(settings)


@pytest.mark.parametrize(
    "mapping",
    [
        {"security": "hunter2"},
        {"security": ["hunter2"]},
        {"security": {"passwort": "hunter2"}},
        {"security": {"password": ["hunter2"]}},
        {"security": {"password": {"hunter2": 1}}},
        {"security": {"token": "hunter2", "password": "hunter2"}},
        {"brokers": "kafka://me:hunter2@kafka.example:9092"},
        {"brokers": ["kafka://kafka.example:9092?password=hunter2"]},
        {"brokers": "kafka.example:9092?TOKEN=hunter2"},
    ],
    ids=str,
)
def test_secrets_show_in_no_error(mapping: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(mapping)
    error = caught.value
    # Without the lines of source code: the mapping above holds the word.
    told = str(error) + "".join(traceback.format_exception_only(error)) + repr(error.__cause__) + repr(error.args)
    assert "hunter2" not in told


def test_secrets_are_values() -> None:
    secret = Secret("a")
    assert secret == Secret("a")
    assert secret != Secret("b")
    assert secret != "a"
    assert len({secret, Secret("a")}) == 1
    assert (bool(secret), bool(Secret(""))) == (True, False)
    assert pickle.loads(pickle.dumps(secret)) == secret
    assert load({"security": {"username": "me", "password": "none"}}).security.password == Secret("none")


def test_later_sources_win() -> None:
    arguments = {"app": "beamline", "brokers": ["code:9092"], "worker": {"commit_every": 1, "commit_interval": 1}}
    file = from_toml('brokers = ["file:9092"]\n[worker]\ncommit_every = 2\ndrain_timeout = "5s"')
    environment = from_environment({"OCTOPUS_WORKER__COMMIT_EVERY": "3", "OCTOPUS_LOG__LEVEL": "error"})
    command_line = {"brokers": None, "worker": {"drain_timeout": 6, "commit_interval": None}, "log": {"level": "debug"}}

    settings = load(merge(arguments, file, environment, command_line))

    assert settings.app == "beamline"
    assert settings.brokers == ("file:9092",)
    assert (settings.worker.commit_every, settings.worker.commit_interval) == (3, 1.0)
    assert settings.worker.drain_timeout == 6.0
    assert settings.log.level == "debug"


def test_merging_changes_none_of_its_arguments() -> None:
    first, second = {"worker": {"commit_every": 1}}, {"worker": {"commit_every": 2}}
    merged = merge(first, second)
    merged["worker"]["commit_every"] = 3
    assert (first, second) == ({"worker": {"commit_every": 1}}, {"worker": {"commit_every": 2}})
    assert merge({"worker": 1}, {"worker": {"a": 1}}) == {"worker": {"a": 1}}
    assert merge() == {}


def test_variables_are_found_by_name() -> None:
    environ = {
        "PATH": "/bin",
        "OCTOPUS_APP": "beamline",
        "OCTOPUS_BROKERS": "a:9092,b:9092",
        "OCTOPUS_SECURITY__PASSWORD": "hunter2",
        "OCTOPUS_CONSUMER__SESSION_TIMEOUT": "",
    }
    assert from_environment(environ) == {
        "app": "beamline",
        "brokers": "a:9092,b:9092",
        "security": {"password": "hunter2"},
    }


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [
        ("OCTOPUS_BROKER", "OCTOPUS_BROKERS"),
        ("OCTOPUS_SECURITY_PASSWORD", "OCTOPUS_SECURITY__PASSWORD"),
        ("OCTOPUS_SECURITY__PASSWROD", "OCTOPUS_SECURITY__PASSWORD"),
        ("OCTOPUS_WORKER__COMMIT_INTERVALL", "OCTOPUS_WORKER__COMMIT_INTERVAL"),
    ],
)
def test_variables_that_look_like_mistakes_are_refused(variable: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_environment({variable: "hunter2"})
    assert str(caught.value) == f"There is no setting for the variable {variable}. Did you mean {suggestion}?"


def test_variables_of_others_are_left_alone() -> None:
    kubernetes = {
        "OCTOPUS_PORT": "tcp://10.0.0.1:9092",
        "OCTOPUS_SERVICE_HOST": "10.0.0.1",
        "OCTOPUS_BROKER_PORT": "tcp://10.0.0.1:9092",
        "OCTOPUS_BROKER_SERVICE_PORT": "9092",
        "OCTOPUS_BROKER_PORT_9092_TCP_ADDR": "10.0.0.1",
        "OCTOPUS_URL": "https://deploy.example",
        "OCTOPUS_API_KEY": "hunter2",
    }
    assert from_environment(kubernetes) == {}


def test_every_setting_has_a_variable_of_its_own() -> None:
    for one in describe():
        assert from_environment({config.environment_name(one.path): "x"}) == nested(one.path, "x")


def test_toml_is_read_from_both_files() -> None:
    assert from_toml("") == {}
    assert from_toml('app = "a"\n[log]\nlevel = "debug"') == {"app": "a", "log": {"level": "debug"}}
    assert from_toml('[tool.octopus]\napp = "a"\n[tool.other]\nb = 1', pyproject=True) == {"app": "a"}
    assert from_toml("[project]", pyproject=True) == {}


@pytest.mark.parametrize(
    ("text", "pyproject", "sentence"),
    [
        ("a = 1\nb = x", False, r"octopus.toml is not TOML: .*line 2"),
        ("a = 1\nb = x", True, r"pyproject.toml is not TOML: .*line 2"),
        ("a = " + "9" * 5000, False, "octopus.toml is not TOML"),
        ("a = " + "[" * 100_000, False, "octopus.toml is not TOML"),
        ("[tool]\noctopus = 5", True, "tool.octopus in pyproject.toml is not a table"),
    ],
    ids=["syntax", "syntax of pyproject", "digits", "depth", "no table"],
)
def test_toml_that_cannot_be_read_is_refused(text: str, pyproject: bool, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        from_toml(text, pyproject=pyproject)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("2ms", 0.002),
        (" 10 s ", 10.0),
        ("5m", 300.0),
        ("5min", 300.0),
        ("2h", 7200.0),
        ("7d", 604800.0),
        (".5s", 0.5),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (1, 1),
        ("1", 1),
        ("64 KiB", 65536),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("1 kB", 1000),
        ("1.5 MB", 1_500_000),
        ("2 GiB", 2**31),
        ("1 TiB", 2**40),
        ("0.5 KiB", 512),
        ("7 B", 7),
    ],
)
def test_sizes(text: Any, count: int) -> None:
    assert size(text) == count


@given(st.text() | st.floats() | st.booleans() | st.none() | st.binary() | st.integers())
def test_nonsense_is_no_duration_and_no_size(value: Any) -> None:
    for read in (duration, size):
        with contextlib.suppress(ValueError):
            assert read(value) >= 0 or value < 0


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=5,
)


@given(path=st.sampled_from([one.path for one in describe()]), value=json_like)
def test_loading_nonsense_raises_nothing_but_configuration_errors(path: str, value: Any) -> None:
    try:
        settings = load(nested(path, value))
    except ConfigurationError:
        return
    assert isinstance(settings, Settings)


def test_every_setting_is_described_and_its_default_can_be_written() -> None:
    described = describe()
    by_path = {one.path: one for one in described}

    assert len(by_path) == len(described)
    assert all(one.doc.endswith(".") and one.type for one in described)
    assert by_path["worker.commit_interval"].type.startswith("seconds")
    assert by_path["producer.max_batch_bytes"].type.startswith("bytes")
    assert by_path["security.password"].type == "text (kept secret), or none"
    for one in described:
        written = "none" if one.default is None and "secret" not in one.type else one.default
        assert load(nested(one.path, written)) == Settings(), one.path


def test_classes_can_be_made_without_the_loader() -> None:
    assert SecuritySettings(region="eu-central-1").mechanism == "AWS_MSK_IAM"


def test_a_program_without_a_file_reads_no_toml() -> None:
    program = (
        "import sys, msgspec, octopus.config as config\n"
        "config.load(config.merge(config.from_environment({'OCTOPUS_APP': 'a'})))\n"
        "print(sorted({'tomllib', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
