#!/usr/bin/env python3
"""Attacks a real threadcast server in every way that is known to kill such servers.

    python3 tests/faults/run.py [--binary PATH] [--only NAME]... [--markdown] [--list]

Python's standard library is all it needs. Every scenario starts a release server, connects 50
well-behaved SSE and 50 well-behaved WebSocket clients, publishes numbered events all the time,
and attacks. The good clients must get every event once and in order; new clients must be served
within two seconds (of its end, where an attack leaves no descriptors or threads); ten seconds after
it threads and descriptors, as /proc tells them, must be what they were, and memory at most 3 MiB
more (5 where a thousand connections came at once to a fresh server).

Connections stay on loopback, or in network namespaces made for the purpose. Run as root the
server gets a user of its own; what cannot be run is named as SKIPPED, with the reason. The exit
code is 1 if any scenario failed.
"""

import argparse
import os
import resource
import sys
import time

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))

import connecting  # noqa: E402, F401  (registers its scenarios, as do the others)
import exhausting  # noqa: E402, F401
import malformed  # noqa: E402, F401
import requesting  # noqa: E402, F401
import stalling  # noqa: E402, F401
import ending  # noqa: E402, F401  (last: it runs the others)
from frame import SCENARIOS, Result, mebibytes, perform  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEADINGS = [
    "scenario",
    "verdict",
    "events",
    "new clients: plain / SSE / WS",
    "after it",
    "event delay",
    "memory, MiB",
    "threads",
    "descriptors",
    "time",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/threadcast"))
    parser.add_argument("--only", action="append", help="a scenario's name, or its beginning")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--list", action="store_true", help="print the scenarios' names")
    options = parser.parse_args()
    chosen = [a for a in SCENARIOS.values() if wanted(a.name, options.only)]
    if options.list or not chosen:
        print("\n".join(f"{attack.name}: {attack.what}" for attack in SCENARIOS.values()))
        return 0 if options.list else 2
    if not os.access(options.binary, os.X_OK):
        print(f"{options.binary} is not there; run: cargo build --release", file=sys.stderr)
        return 2
    # The attacker needs thousands of descriptors.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    start = time.monotonic()
    results = []
    for attack in chosen:
        print(f"{attack.name}: {attack.what} …", flush=True)
        result = perform(attack, options.binary)
        results.append(result)
        print(f"  {result.verdict} in {result.seconds:.1f} s", flush=True)
        for text in result.failures:
            print(f"  ! {text}", flush=True)
        for text in result.notes:
            print(f"    {text}", flush=True)
    if not options.only:
        results.append(
            Result("wall clock set back", verdict="unit test", notes=["src/event/mod.rs"])
        )
    print()
    print_table(results, options.markdown)
    failed = [result.name for result in results if result.verdict == "FAILED"]
    print()
    for result in results:
        if result.verdict == "SKIPPED":
            print(f"SKIPPED {result.name}: {'; '.join(result.notes)}")
    print(f"{len(results)} scenarios in {time.monotonic() - start:.0f} s; "
          + (f"FAILED: {', '.join(failed)}" if failed else "nothing failed"))
    return 1 if failed else 0


def wanted(name, only):
    return not only or any(name.startswith(part) for part in only)


def row(result):
    """One scenario's cells."""
    cells = [result.name, result.verdict]
    if not result.before:
        return cells + ["–"] * (len(HEADINGS) - 2)

    def three(name, show=str):
        sets = (result.before, result.during, result.after)
        return " / ".join(show(getattr(one, name)) if one else "–" for one in sets)

    worst = " / ".join(milliseconds(result.worst.get(kind)) for kind in ("plain", "sse", "ws"))
    return cells + [
        f"{result.events:,}",
        f"{worst} ms",
        f"{milliseconds(result.again)} ms" if result.again is not None else "–",
        f"{milliseconds(result.delay)} ms" if result.delay is not None else "–",
        three("memory", mebibytes),
        three("threads"),
        three("descriptors"),
        f"{result.seconds:.0f} s",
    ]


def milliseconds(seconds):
    return f"{seconds * 1000:.0f}" if seconds else "–"


def print_table(results, markdown):
    rows = [HEADINGS] + [row(result) for result in results]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADINGS))]
    bar = " | " if markdown else "  "
    for number, cells in enumerate(rows):
        line = bar.join(cell.ljust(width) for cell, width in zip(cells, widths))
        print(f"| {line} |" if markdown else line.rstrip())
        if number == 0:
            rule = bar.join("-" * width for width in widths)
            print(f"| {rule} |" if markdown else rule)
    print("\nNew clients: the longest that one waited during the attack; 'after it': the longest "
          "that all three kinds took\ntogether when it had ended. Event delay: the longest from "
          "publishing to a good client. Memory (resident),\nthreads and descriptors: before / "
          "highest / after.")


if __name__ == "__main__":
    sys.exit(main())
