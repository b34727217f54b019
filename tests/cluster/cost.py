#!/usr/bin/env python3
"""What a delivery costs on three servers with one Redis, beside one server in memory.

    python3 tests/cluster/cost.py --binary PATH --bench PATH [--rounds N] [--clients N]

Each server in turn has N event streams and 20 events a second for them, published on it; with Redis the two
others read along. Prints the server's CPU microseconds for a delivery: the median of all rounds, and the
ratio to one server in memory. PATH is a server with the feature redis, and the load generator
(`cargo build --release -p threadcast-bench`). It measures: run nothing else meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))

from processes import Redis  # noqa: E402
from server import Server  # noqa: E402


def fan_out(options, server):
    """Server CPU of a delivery, in microseconds."""
    command = [options.bench, "fanout", "--json", "--clients", str(options.clients), "--rate", "20",
               "--size", "100", "--seconds", "4", "--url", server.url, "--pid", str(server.process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])["server_cpu_us_per_delivery"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=1000)
    options = parser.parse_args()
    costs = {"alone": [], "first of three": [], "second": [], "third": []}
    flags = ("--log", "off", "--tick", "0")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            # In turn, so that what else the machine does meets all of them.
            with Server(options.binary, *flags) as alone:
                costs["alone"].append(fan_out(options, alone))
            with Redis(folder, f"redis-{number}") as redis:
                shared = (*flags, "--redis", f"redis://127.0.0.1:{redis.port}")
                with Server(options.binary, *shared) as first, Server(options.binary, *shared) as second, \
                        Server(options.binary, *shared) as third:
                    for name, server in zip(list(costs)[1:], (first, second, third)):
                        costs[name].append(fan_out(options, server))
    base = statistics.median(costs["alone"])
    for name, values in costs.items():
        median = statistics.median(values)
        print(f"{name:15} {median:5.2f} us a delivery, {median / base:4.2f} x"
              f"  ({', '.join(f'{value:.2f}' for value in values)})")


if __name__ == "__main__":
    main()
