#!/usr/bin/env python3
"""Asks every module of the PerfettoSQL package for everything that it has, on every trace that is given.

    check.py TRACE_PROCESSOR_SHELL TRACE...

Ends with 1, and says which module, object and trace it was, if any answer is an error. It does as well if a public
object or column is not documented.
"""

import pathlib
import re
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).resolve().parent / "polletto"
# For a trace of many hundred thousand polls, several times what it takes.
SECONDS = 300
# What functions are asked with, by the type of their argument.
ARGUMENTS = {"LONG": "5000000", "STRING": "''", "DOUBLE": "1.0"}

CREATED = re.compile(
    r"^CREATE PERFETTO (?P<what>TABLE|VIEW|FUNCTION) (?P<name>\w+)"
    r"\((?P<first>.*?)^\)(?P<rest>(?:\s*RETURNS TABLE\((?P<second>.*?)^\))?)\s*AS$",
    re.MULTILINE | re.DOTALL,
)
NAMED = re.compile(r"^CREATE PERFETTO (?:TABLE|VIEW|FUNCTION) (\w+)", re.MULTILINE)


class Object:
    """A table, a view or a function that a module has."""

    def __init__(self, module, name, query):
        self.module = module
        self.name = name
        self.query = query


def undocumented(columns):
    """The columns, or arguments, that have no comment in front."""
    lines = [line.strip() for line in columns.splitlines() if line.strip()]
    for before, line in zip([""] + lines, lines):
        if not line.startswith("--") and not before.startswith("--"):
            yield line.split()[0]


def read_package():
    """Everything public in the package, and what is wrong with how it is written."""
    objects, faults = [], []
    for path in sorted(PACKAGE.glob("**/*.sql")):
        module = ".".join([PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts])
        text = path.read_text(encoding="utf-8")
        found = {match["name"]: match for match in CREATED.finditer(text)}
        for name in NAMED.findall(text):
            if name.startswith("_"):
                continue
            match = found.get(name)
            if match is None:
                faults.append(f"{module}: {name} does not declare its columns")
                continue
            before = text[: match.start()].rstrip("\n").rsplit("\n", 1)[-1]
            if not before.startswith("--"):
                faults.append(f"{module}: {name} is not documented")
            for column in [*undocumented(match["first"]), *undocumented(match["second"] or "")]:
                faults.append(f"{module}: {name} does not document {column}")
            call = name
            if match["what"] == "FUNCTION":
                declared = [line.strip().rstrip(",") for line in match["first"].splitlines()]
                types = [line.split()[1] for line in declared if line and not line.startswith("--")]
                call = f"{name}({', '.join(ARGUMENTS[of] for of in types)})"
            # All columns have to be read, not only counted.
            objects.append(Object(module, name, f"SELECT * FROM {call};"))
        if not any(entry.module == module for entry in objects):
            objects.append(Object(module, "(nothing public)", "SELECT 1;"))
    return objects, faults


def ask(shell, trace, objects):
    """What goes wrong when all of these are asked for at once. None if nothing does."""
    modules = sorted({entry.module for entry in objects})
    lines = [f"INCLUDE PERFETTO MODULE {module};" for module in modules] + [entry.query for entry in objects]
    command = [shell, "query", "--add-sql-package", str(PACKAGE), "-f", "-", str(trace)]
    try:
        answer = subprocess.run(
            command, input="\n".join(lines), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s"
    if answer.returncode == 0:
        return None
    return answer.stderr.strip() or f"exit status {answer.returncode}"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    shell, traces = sys.argv[1], sys.argv[2:]
    objects, faults = read_package()
    for trace in traces:
        error = ask(shell, trace, objects)
        # Alone to tell which it was; and once in any case, for a module may lack what others happen to include.
        alone = []
        if error is not None or trace == traces[0]:
            answers = [(entry, ask(shell, trace, [entry])) for entry in objects]
            wrong = [(entry, answer) for entry, answer in answers if answer is not None]
            alone = [f"{entry.module}: {entry.name} on {trace}: {answer}" for entry, answer in wrong]
        faults.extend(alone)
        if error is None and not alone:
            print(f"{trace}: {len(objects)} objects answer")
        elif not alone:
            faults.append(f"{trace}: modules answer alone, but not all at once: {error}")
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
