#!/usr/bin/env python3
"""The page in Chromium, against a release server: every view, every button, as its readers use them.

    python3 tests/browser/run.py [--binary PATH] [--check NAME]...

Playwright drives Debian's chromium. What is needed is installed under target/clients or, as root, with
apt-get. Screenshots at three widths, dark and light, are left in target/browser: whoever changes the
page looks at them. The exit code is 1 if any check failed.
"""

import argparse
import os
import subprocess
import sys

sys.dont_write_bytecode = True  # the source tree stays as it is
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))

import tools  # noqa: E402


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=os.path.join(tools.ROOT, "target/release/threadcast"))
    arguments.add_argument("--check", action="append", default=[], help="a check's name, or its beginning")
    options = arguments.parse_args()
    if not os.access(options.binary, os.X_OK):
        print(f"{options.binary} is not there; run: cargo build --release", file=sys.stderr)
        return 2
    tools.end_tidily()
    try:
        node, environment = tools.node()
        chromium = tools.chromium()
    except tools.Missing as why:
        print(f"SKIPPED: {why}")
        return 0
    out = os.path.join(tools.ROOT, "target", "browser")
    command = [node, os.path.join(HERE, "checks.js"), options.binary, chromium, out, *options.check]
    # With this process gone, the checks see the end of their input and end, too.
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
