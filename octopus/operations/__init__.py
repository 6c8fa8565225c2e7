"""What the command line does, without the command line: functions that return frozen values and know no terminal.

Each takes a connected `Admin` or `Transport` (`octopus.transports.base`) and plain arguments, with `now` where time
matters. What asks a person first is two functions: one returns a plan, the other carries it out. Progress is told to a
callback: how much more is done (`progress.py`), or what has been done up to then. What cannot be done is an error of `octopus.errors`, as a sentence.
`msgspec.json.encode` of a result is what `--json` prints.
"""
