#!/usr/bin/env python3
"""Holds /echo against the Autobahn test suite: all 517 cases, with compression where there is any.

    python3 tests/autobahn/run.py [--binary PATH] [--update] [--only 6.*]... [--compare-all]

Each case must come out as it is written in expected.json; `--update` writes that file anew. No
case may be FAILED, UNIMPLEMENTED or NON-STRICT, whatever the file says, and where RFC 6455 asks
for a close code the right one must have been sent. Some of the cases of compression (12 and 13) are
run against npm ws, too, in turn, to compare the times; with --compare-all every one of them is.

The suite needs Python 2.7: without one, or without a network to install it from, this says
SKIPPED and why, and exits with 0. Reports, one page a case, are left in target/autobahn/.
"""

import argparse
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # the source tree stays as it is
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "common"))

import suite  # noqa: E402
import tools  # noqa: E402
from codes import wrong_code  # noqa: E402
from server import Server, names_flag  # noqa: E402

EXPECTED = os.path.join(HERE, "expected.json")
FIELDS = ("behavior", "behaviorClose", "remoteCloseCode")
CASES = 517
# The cases of group 9 send as much as this; the suite's default server has no limit.
LARGEST = 16 << 20
COMPRESSION = ("12.*", "13.*")
# Of each of their subgroups short, middle and long messages. What most cases take is the suite's own
# time, in Python: all of them against two servers are minutes.
SAMPLE = (3, 8, 14)
REST = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
# No more than ws takes is what is wanted. Two cores and other programs beside it make single runs
# differ by tens of percents, so only what is clearly slower fails.
SLOWEST = 1.5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.path.join(tools.ROOT, "target/release/threadcast"))
    parser.add_argument("--update", action="store_true", help="write expected.json anew")
    parser.add_argument("--compare-all", action="store_true",
                        help="time all cases of compression beside npm ws, not some")
    parser.add_argument("--only", action="append", help="cases, as the suite names them: 6.4.*")
    options = parser.parse_args()
    if options.update and options.only:
        parser.error("--update needs all cases")
    if not os.access(options.binary, os.X_OK):
        print(f"{options.binary} is not there; run: cargo build --release", file=sys.stderr)
        return 2
    tools.end_tidily()
    start = time.monotonic()
    try:
        wstest = suite.install()
    except tools.Missing as why:
        print(f"SKIPPED Autobahn test suite: {why}")
        return 0
    compresses = names_flag(options.binary, "--deflate")
    flags = ["--max-message", str(LARGEST), "--log", "off"] + ["--deflate"] * compresses
    with Server(options.binary, *flags) as server:
        url = f"ws://127.0.0.1:{server.port}/echo"
        if options.only:
            results = suite.perform(wstest, "threadcast", url, options.only)
            for number in sorted(results, key=in_order):
                print(number, *show(results[number]))
            failures = judge(results, compresses)
        else:
            results = {}
            for cases in (REST, *([group] for group in COMPRESSION)):
                results.update(suite.perform(wstest, "threadcast", url, cases))
            failures = []
            if compresses:
                failures += compare_times(wstest, url, results, options.compare_all)
            if server.process.poll() is not None:
                failures.append("the server's process has ended")
            failures += judge(results, compresses)
            if options.update:
                write_expected(results)
            failures += differences(results)
    print_table(results)
    for failure in failures:
        print(f"! {failure}")
    if not compresses:
        print("SKIPPED compression: this server has no --deflate; 12 and 13 are UNIMPLEMENTED")
    print(f"{len(results)} cases in {time.monotonic() - start:.0f} s; "
          + (f"{len(failures)} FAILED" if failures else "nothing failed"))
    return 1 if failures else 0


def judge(results, compresses):
    """What must not be, whatever is expected."""
    failures = []
    for number in sorted(results, key=in_order):
        result = results[number]
        if number.startswith(("12.", "13.")) and not compresses:
            continue
        # Until there is compression, only expected.json tells what may be NON-STRICT.
        good = ("OK", "INFORMATIONAL") if compresses else ("OK", "INFORMATIONAL", "NON-STRICT")
        for verdict in {result["behavior"], result["behaviorClose"]}.difference(good):
            failures.append(f"{number} is {verdict}")
        if problem := wrong_code(number, result["remoteCloseCode"]):
            failures.append(f"{number} {problem}")
    return failures


def differences(results):
    """Where a case did not come out as expected.json has it."""
    try:
        with open(EXPECTED, encoding="ascii") as file:
            expected = json.load(file)
    except FileNotFoundError:
        return ["there is no expected.json; write it with --update"]
    failures = [] if len(results) == CASES else [f"{len(results)} cases instead of {CASES}"]
    for number in sorted(results.keys() | expected.keys(), key=in_order):
        was = expected.get(number)
        now = show(results[number]) if number in results else None
        if was != now:
            failures.append(f"{number} was {was}, is {now}")
    return failures


def write_expected(results):
    """One case a line, in the suite's order, so that a change is one line of a diff."""
    lines = [f'  "{number}": {json.dumps(show(results[number]))}'
             for number in sorted(results, key=in_order)]
    with open(EXPECTED, "w", encoding="ascii") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


def compare_times(wstest, url, results, compare_all):
    """Runs cases of compression against the server and npm ws, in turn."""
    try:
        node, environment = tools.node()
    except tools.Missing as why:
        print(f"SKIPPED comparison with npm ws: {why}")
        return []
    failures = []
    # Ended by the end of its input, should this process be killed.
    peer = subprocess.Popen([node, os.path.join(HERE, "peer.js")], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env=environment)
    try:
        peer_url = f"ws://127.0.0.1:{int(peer.stdout.readline())}/"
        for place, group in enumerate(COMPRESSION):
            cases = [number for number in results if number.startswith(group[:3])
                     and (compare_all or in_order(number)[2] in SAMPLE)]
            times = {}
            turns = [("threadcast", url), ("ws", peer_url)]
            # Whoever is first in one group is second in the other.
            for agent, where in turns[::-1] if place % 2 else turns:
                times[agent] = suite.perform(wstest, agent, where, cases)
            both = [number for number in cases
                    if all(one[number]["behavior"] == "OK" for one in times.values())]
            took, peer_took = (sum(times[agent][number]["duration"] for number in both) / 1000
                               for agent in ("threadcast", "ws"))
            ratio = took / peer_took
            print(f"group {group[:2]}: {took:.1f} s, npm ws {peer_took:.1f} s, ratio {ratio:.2f} "
                  f"({len(both)} of {len(cases)} cases, those that both pass)")
            if ratio > SLOWEST:
                failures.append(f"group {group[:2]} took {ratio:.2f} times as long as npm ws")
    finally:
        peer.kill()
        peer.wait()
    return failures


def in_order(number):
    return [int(part) for part in number.split(".")]


def show(result):
    return [result[field] for field in FIELDS]


def print_table(results):
    """How many cases of each group came out how."""
    groups = {}
    for number, result in results.items():
        verdicts = groups.setdefault(int(number.split(".")[0]), {})
        verdicts[result["behavior"]] = verdicts.get(result["behavior"], 0) + 1
    for group in sorted(groups):
        verdicts = ", ".join(f"{count} {name}" for name, count in sorted(groups[group].items()))
        print(f"group {group:2}: {verdicts}")


if __name__ == "__main__":
    sys.exit(main())
