"""A Python of its own for kafka-python 2, which cannot live beside kafka-python 3."""

import fcntl
import shutil
import subprocess
import sys

from tests.support.kafka_jars import cache_directory
from tests.support.loud_skips import skip_loudly

PACKAGES = ("kafka-python==2.3.3", "python-snappy==0.7.3", "lz4==4.4.5", "zstandard==0.25.0")
INSTALL_DEADLINE = 300.0


def python_with_older_kafka_python() -> str:
    """Return the path of its interpreter, made once and kept outside the tree; skips loudly when that fails."""
    name = "-".join(("kafka-python-2.3.3", f"{sys.version_info.major}.{sys.version_info.minor}"))
    environment = cache_directory() / name
    python = environment / "bin" / "python"
    environment.parent.mkdir(parents=True, exist_ok=True)
    with (environment.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = environment / "complete"
        if not complete.exists():
            shutil.rmtree(environment, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(environment)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES])
            complete.touch()
    return str(python)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or error.stdout or str(error)).strip().splitlines()[-1:]
        skip_loudly("the kafka-python 2.3.3 checks", f"its environment could not be made: {' '.join(map(str, said))}")
