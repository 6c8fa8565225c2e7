"""`python -m octopus`, and what the console script `octopus` calls."""

import signal
import sys

from octopus.early_stop import EarlyStop


def main() -> None:
    """Run the command line and exit with its code; see `octopus.cli.program` for the codes."""
    is_run = sys.argv[1:2] == ["run"]
    # Of `run` nothing has begun until a worker or its supervisor listens, which takes as long as the import of the app.
    early_stop = EarlyStop({signal.SIGTERM: 0, signal.SIGINT: 0} if is_run else {signal.SIGINT: 130})
    early_stop.listen()
    from octopus.cli.program import run_program  # here, so that importing this module costs nothing

    if not is_run:
        early_stop.call_off()
    code = run_program(sys.argv[1:])
    if is_run:
        from octopus.worker.overtime import end_soon

        end_soon(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
