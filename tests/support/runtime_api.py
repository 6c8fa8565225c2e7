"""A Lambda Runtime API on loopback, and the real runtime client as a process that asks it for work.

Source: AWS Lambda developer guide, "Using the Lambda runtime API" and "Lambda Extensions API".
"""

import http.server
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

ARN = "arn:aws:lambda:us-east-1:123456789012:function:octopus"


class Answer(NamedTuple):
    """What the runtime client posted for an invocation.

    Attributes:
        kind: `response` or `error`.
        body: Its JSON.
        error_type: For errors, the header that names their type.
    """

    kind: str
    body: Any
    error_type: str = ""


class RuntimeApi:
    """Serves invocations to one runtime client."""

    def __init__(self, *, with_extensions: bool = True) -> None:
        self.with_extensions = with_extensions
        self.extensions: list[tuple[str, Any]] = []
        self.ready = threading.Event()  # an extension waits for its events
        self.polling = threading.Event()  # the runtime waits for an invocation
        self.init_error: Answer | None = None
        self._invocations: queue.Queue[tuple[str, bytes, float]] = queue.Queue()
        self._answers: dict[str, queue.Queue[Answer]] = {}
        self._closing = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """`host:port`, as `AWS_LAMBDA_RUNTIME_API` has it."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def invoke(self, event: Any, *, timeout: float = 10.0, patience: float = 30.0) -> Answer:
        """Invoke the function once.

        Args:
            event: Sent as JSON.
            timeout: What the function is told it has, seconds.
            patience: How long to wait for its answer, seconds.
        """
        request_id = str(uuid.uuid4())
        answers = self._answers[request_id] = queue.Queue()
        self._invocations.put((request_id, json.dumps(event).encode(), timeout))
        return answers.get(timeout=patience)

    # ── what the handler calls ────────────────────────────────────────────────────────────────────────────────────

    def next_invocation(self) -> tuple[str, bytes, float] | None:
        """Wait for an invocation; None when the server ends."""
        self.polling.set()
        while not self._closing.is_set():
            try:
                return self._invocations.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def answered(self, request_id: str, answer: Answer) -> None:
        """Take an answer."""
        self._answers[request_id].put(answer)

    def wait_until_closed(self) -> None:
        """An extension that wants no events waits for ever."""
        self.ready.set()
        self._closing.wait()


def start_runtime(
    api: RuntimeApi, folder: Path, handler: str, environment: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start the real runtime client as Lambda does; what it prints goes to `runtime.log` beside the code.

    Args:
        api: What it talks to.
        folder: The function's code.
        handler: `module.name`.
        environment: More variables.
    """
    root = Path(__file__).resolve().parents[2]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OCTOPUS_"))}
    lambdas_own = {
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": "octopus",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "log",
        "AWS_LAMBDA_LOG_STREAM_NAME": "log",
        "AWS_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": str(folder),
        "PYTHONPATH": os.pathsep.join([str(folder), str(root)]),
    }
    with (folder / "runtime.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=folder,
            env={**inherited, **lambdas_own, **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _handler(api: RuntimeApi) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment, or Nagle and delayed acknowledgements cost 40 ms each
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/2018-06-01/runtime/invocation/next":
                invocation = api.next_invocation()
                if invocation is None:
                    self._send(500, b"{}")
                    return
                request_id, event, timeout = invocation
                self._send(
                    200,
                    event,
                    {
                        "Lambda-Runtime-Aws-Request-Id": request_id,
                        "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
                        "Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout) * 1000)),
                        "Lambda-Runtime-Invoked-Function-Arn": ARN,
                    },
                )
            elif self.path == "/2020-01-01/extension/event/next":
                api.wait_until_closed()
                self._send(500, b"{}")
            else:
                self._send(404, b"{}")

        def do_POST(self) -> None:
            body = self._body()
            if match := re.fullmatch(r"/2018-06-01/runtime/invocation/([^/]+)/(response|error)", self.path):
                request_id, kind = match.groups()
                error_type = self.headers.get("Lambda-Runtime-Function-Error-Type", "")
                api.answered(request_id, Answer(kind, json.loads(body or b"null"), error_type))
                self._send(202, b'{"status":"OK"}')
            elif self.path == "/2018-06-01/runtime/init/error":
                api.init_error = Answer(
                    "error", json.loads(body), self.headers.get("Lambda-Runtime-Function-Error-Type", "")
                )
                self._send(202, b'{"status":"OK"}')
            elif self.path == "/2020-01-01/extension/register" and api.with_extensions:
                api.extensions.append((self.headers["Lambda-Extension-Name"], json.loads(body)))
                self._send(200, b"{}", {"Lambda-Extension-Identifier": str(uuid.uuid4())})
            else:
                self._send(404, b"{}")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    return Handler
