#!/usr/bin/env python3
"""Several threadcast servers with one history, and one with a journal, while servers, Redis, disks and
clocks fail.

    python3 tests/cluster/run.py [--binary PATH] [--only NAME]... [--clients N] [--list] [--self-test]

600 clients (half of them SSE, half WebSocket) wander: each drops its connection at random times and
comes back to any server, directly or through nginx or HAProxy. Publishers send each event until it is
acknowledged. In the end every client must have every acknowledged event, once, in one order, or an
announced gap where the scenario allows it. The table goes to target/cluster/table.md, the logs of what
failed to target/cluster/NAME. The exit code is 1 if anything is lost, comes twice, or a gap is announced
where none is allowed. --self-test plants such faults in logs and checks that they are found.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))

import scenarios  # noqa: E402, F401  (registers its scenarios, as does journal)
import journal  # noqa: E402, F401
import tools  # noqa: E402
import verify  # noqa: E402
from frame import HOME, SCENARIOS, perform  # noqa: E402

HEADINGS = ["scenario", "clients", "events", "lost", "twice", "gaps announced", "longest silence"]
LAST_LINES = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", help="a server with the feature redis; without this it is built")
    parser.add_argument("--only", action="append", help="a scenario's name, or its beginning")
    parser.add_argument("--clients", type=int, default=600)
    parser.add_argument("--list", action="store_true", help="print the scenarios' names")
    parser.add_argument("--self-test", action="store_true", help="check the verifier, and nothing else")
    options = parser.parse_args()
    verify.self_test()
    if options.self_test:
        print("every planted fault is found")
        return 0
    chosen = [one for one in SCENARIOS.values() if wanted(one.name, options.only)]
    if options.list or not chosen:
        print("\n".join(f"{one.name}: {one.what}" for one in SCENARIOS.values()))
        return 0 if options.list else 2
    tools.end_tidily()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    binary = options.binary or build()
    os.makedirs(HOME, exist_ok=True)
    start, results = time.monotonic(), []
    for one in chosen:
        print(f"{one.name}: {one.what} …", flush=True)
        result = perform(one, binary, options.clients)
        results.append(result)
        report(result)
    table = markdown(results)
    with open(os.path.join(HOME, "table.md"), "w", encoding="utf-8") as file:
        file.write(table)
    failed = [result.scenario.name for result in results if result.failed]
    print(f"\n{table}\n{len(results)} scenarios in {time.monotonic() - start:.0f} s; "
          + (f"FAILED: {', '.join(failed)}" if failed else "nothing failed"))
    return 1 if failed else 0


def build():
    """A release server with Redis."""
    command = [tools.program("cargo", "cargo"), "build", "--release", "-F", "redis"]
    subprocess.run(command, cwd=tools.ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(tools.ROOT, "target"))
    return os.path.join(target, "release", "threadcast")


def wanted(name, only):
    return not only or any(name.startswith(part) for part in only)


def report(result):
    """What one scenario came to, and what is known of its failure."""
    answers = ", ".join(f"{count} × {answer}" for answer, count in sorted(result.answers.items(), key=str))
    print(f"  {'FAILED' if result.failed else 'passed'} in {result.seconds:.1f} s; "
          f"{result.visits:,} connections; publishing: {answers}", flush=True)
    for text in result.notes:
        print(f"    {text}")
    for text in result.verdict.problems[:12]:
        print(f"  ! {text}")
    if result.failed:
        for path, lines in last_lines(result.folder):
            print(f"  {path}:\n" + "".join(f"    | {line}\n" for line in lines), end="")
    sys.stdout.flush()


def last_lines(folder):
    """The ends of the servers' logs, without the lines that each client has."""
    for name in sorted(os.listdir(folder)):
        if name.startswith("server-") and name.endswith(".log"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as log:
                lines = [line for line in log.read().splitlines() if "client::registry" not in line]
            yield os.path.join(folder, name), lines[-LAST_LINES:]


def markdown(results):
    rows = [HEADINGS, ["---"] * len(HEADINGS)]
    for one in results:
        verdict = one.verdict
        rows.append([one.scenario.name, f"{one.clients:,}", f"{one.events:,}", f"{verdict.lost:,}",
                     f"{verdict.twice:,}", f"{verdict.gaps:,}", f"{verdict.silence:.1f} s"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


if __name__ == "__main__":
    sys.exit(main())
