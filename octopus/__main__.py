"""`python -m octopus`, and what the console script `octopus` calls."""

import sys


def main() -> None:
    """Run the command line and exit with its code; see `octopus.cli.program` for the codes."""
    from octopus.cli.program import run_program  # here, so that importing this module costs nothing

    code = run_program(sys.argv[1:])
    if sys.argv[1:2] == ["run"]:
        from octopus.worker.overtime import end_soon

        end_soon(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
