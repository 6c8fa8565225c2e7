"""What a cold function has to load."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

TOO_HEAVY = (
    "aiohttp", "aiokafka", "boto3", "botocore", "confluent_kafka", "cramjam", "cyclopts", "fastapi", "httpx",
    "pydantic", "requests", "rich", "starlette", "uvicorn", "uvloop", "watchfiles", "yaml",
)  # fmt: skip

PROBE = """
import json, sys, time
import asyncio, anyio, msgspec
began = time.process_time()
{work}
print(json.dumps([sorted({{name.partition(".")[0] for name in sys.modules}}), time.process_time() - began]))
"""

HANDLE = """
from octopus import Octopus
from octopus.triggers.aws import handler
app = Octopus("beamline")
@app.on("files", filter={"size": [{"numeric": [">", 1]}]}, to="out")
async def look(file: dict) -> None: ...
assert handler(app)({"eventSource": "aws:kafka", "bootstrapServers": "b:9092", "records": {"files-0": [
    {"topic": "files", "partition": 0, "offset": 1, "timestamp": 1, "value": "eyJzaXplIjoyfQ=="}]}}) == {"batchItemFailures": []}
"""


@pytest.mark.parametrize(
    "work", ["import octopus.triggers.aws", HANDLE], ids=["import", "import and one invocation that publishes nothing"]
)
def test_a_cold_function_loads_nothing_it_may_not_need(work: str) -> None:
    loaded, seconds = _probe(work)
    assert not {*loaded} & {*TOO_HEAVY}
    assert seconds < 1, "of processor time; a generous limit, because the sources may have to be compiled first"


def _probe(work: str) -> tuple[list[str], float]:
    probe = PROBE.format(work=work)
    finished = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    loaded, seconds = json.loads(finished.stdout)
    return loaded, seconds
