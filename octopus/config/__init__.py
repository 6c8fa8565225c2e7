"""Settings: a frozen tree, and one pure loader from a mapping to it.

Four sources, each overriding the one before: arguments in code, `octopus.toml` (or `[tool.octopus]` in
`pyproject.toml`), `OCTOPUS_*` variables, the command line. The starter of the program reads the file and the
environment, and merges once:

    load(merge(arguments, from_toml(text), from_environment(environ), command_line))
"""

import re

from octopus.config.loading import SettingRefused, Source, in_code, load, load_from, merge
from octopus.config.secret import Secret
from octopus.config.settings import (
    BrokerSettings,
    ConsumerSettings,
    LogSettings,
    ProducerSettings,
    SecuritySettings,
    Settings,
    TopicSettings,
    WorkerSettings,
)
from octopus.config.sources import environment_name, from_environment, from_toml, in_environment, in_file
from octopus.config.tree import Setting, describe

__all__ = [
    "BrokerSettings",
    "ConsumerSettings",
    "LogSettings",
    "ProducerSettings",
    "Secret",
    "SecuritySettings",
    "Setting",
    "SettingRefused",
    "Settings",
    "Source",
    "TopicSettings",
    "WorkerSettings",
    "describe",
    "environment_name",
    "from_environment",
    "from_toml",
    "in_code",
    "in_environment",
    "in_file",
    "load",
    "load_from",
    "merge",
]

TOPIC_NAME = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}")
TOPIC_NAME_RULE = "1 to 249 letters, digits, '.', '_' or '-'"
GROUP_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}")
"""The characters of a consumer group's name that every tool and AWS accept."""
