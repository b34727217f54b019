#!/usr/bin/env python3
"""Real clients against a release server: libraries, curl and a browser, alone and behind proxies.

    python3 tests/clients/run.py [--binary PATH] [--client NAME]... [--check NAME]... [--markdown]

What the clients need is installed under target/clients (npm ci, pip, cargo) or, as root, with
apt-get; what cannot be had is named as SKIPPED, with the reason. Every client goes through the same
checks: see driver.py, *_checks.py and rules.py. The exit code is 1 if any check failed.
"""

import argparse
import os
import shutil
import sys
import time

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))

import book_checks  # noqa: E402, F401  (registers its checks, as do the others)
import bytes_checks  # noqa: E402, F401
import page_checks  # noqa: E402, F401
import parser as standard  # noqa: E402
import proxy_checks  # noqa: E402, F401
import publish_checks  # noqa: E402, F401
import sse_checks  # noqa: E402, F401
import tab_checks  # noqa: E402, F401
import tools  # noqa: E402
import ws_checks  # noqa: E402, F401
from checks import CHECKS, Context, Result, perform  # noqa: E402
from driver import Driver  # noqa: E402
from server import names_flag  # noqa: E402

NO_API = "has no API for it"
ENDS_LATE = {"leaves no connection behind": "a thread that reads cannot be stopped by another"}


def script(name):
    return os.path.join(tools.CLIENTS, "drivers", name)


def in_node(name, *arguments):
    node, environment = tools.node()
    return {"command": [node, script(name), *arguments], "environment": environment}


def in_python(name, *arguments):
    return {"command": [tools.python(), "-B", script(name), *arguments]}


def printing(*command):
    return {"command": [sys.executable, "-B", script("programs.py"), *command]}


def curl():
    # -N: not to wait for more; -f: an answer that is an error is no stream.
    return printing(tools.program("curl", "curl"), "-sSNf")


def java():
    return printing(*tools.java(), "EventStream")


def chromium(*library):
    profile = os.path.join(tools.HOME, "profile")
    shutil.rmtree(profile, ignore_errors=True)
    return in_node("chromium.js", tools.chromium(), profile, *library)


# Name, kinds, how it is started, what is known about it.
CLIENTS = [
    ("curl", ["sse", "bytes"], curl, {}),
    *((name, ["sse"], lambda name=name: in_python("python_sse.py", name),
       {"lacks": ENDS_LATE, "misreads": misreads})
      for name, misreads in {
          "httpx-sse": {},
          "sseclient-py, urllib3": {},
          "sseclient-py, requests": {},
          "requests, iter_lines": {},
          "httpx, iter_lines": {"VT, FF, FS, NEL, LS and PS are none": "its lines end there, too"},
          "aiohttp": {},
      }.items()),
    ("requests", ["publish"], lambda: in_python("python_publish.py", "requests"), {}),
    ("urllib3", ["publish"], lambda: in_python("python_publish.py", "urllib3"), {}),
    ("npm eventsource", ["sse"], lambda: in_node("eventsource.js"), {"returns": True}),
    ("Java HttpClient", ["sse"], java, {}),
    ("npm ws", ["ws"], lambda: in_node("ws.js"), {}),
    ("websockets, sync", ["ws"], lambda: in_python("websockets_sync.py"), {}),
    ("websockets, asyncio", ["ws"], lambda: in_python("websockets_asyncio.py"), {}),
    # It may stop reading before its close frame is answered: it cannot tell how it ended.
    ("simple-websocket", ["ws, without an end"], lambda: in_python("simple_websocket_client.py"), {}),
    ("tokio-tungstenite", ["ws"], lambda: {"command": [tools.tokio()]},
     {"lacks": {"compression: negotiated, echo and events": "does not offer it"}}),
    ("Chromium", ["sse", "ws", "page"], chromium,
     {"returns": True,
      "lacks": {"ping": NO_API,
                "compression: not where the client does not offer it": "always offers it"}}),
    # In a page in Chromium.
    *((f"npm {library}", ["sse"], lambda library=library: chromium(library), {"returns": True, **known})
      for library, known in {
          "fetch-event-source": {"misreads": {
              **{what: "forgets empty lines before the first that is not" for what in
                 ("empty lines around", "nothing but LF", "nothing but three LFs")},
              **{what: "decodes each line by itself: drops a byte order mark at its start" for what in
                 ("at the start of data", "in the middle, and in the next line")},
          }},
          "sse.js": {},
          "event-source-polyfill": {},
      }.items()),
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=os.path.join(tools.ROOT, "target/release/threadcast"))
    arguments.add_argument("--client", action="append", help="a client's name, or its beginning")
    arguments.add_argument("--check", action="append", help="a check's name, or its beginning")
    arguments.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = arguments.parse_args()
    if not os.access(options.binary, os.X_OK):
        print(f"{options.binary} is not there; run: cargo build --release", file=sys.stderr)
        return 2
    tools.end_tidily()
    start = time.monotonic()
    standard.check()
    context = Context(options.binary, compresses=names_flag(options.binary, "--deflate"))
    os.makedirs(tools.HOME, exist_ok=True)
    results = []
    for name, kinds, prepare, known in CLIENTS:
        if not wanted(name, options.client):
            continue
        began = time.monotonic()
        try:
            prepared = prepare()
        except tools.Missing as why:
            results.append(Result(name, "all", "SKIPPED", str(why)))
            continue
        with open(os.path.join(tools.HOME, "clients.log"), "a", encoding="utf-8") as log:
            client = Driver(name, kinds, log=log, **prepared, **known)
        try:
            ran = run_checks(context, client, options.check)
        finally:
            client.end()
        results += ran
        print(f"{name}: {len(ran)} checks in {time.monotonic() - began:.0f} s", flush=True)
        for result in ran:
            if result.verdict == "FAILED":
                print(f"  ! {result.check}: {result.note}", flush=True)
    print()
    print_table(results, options.markdown)
    failed = [result for result in results if result.verdict == "FAILED"]
    print(f"\n{len(results)} checks in {time.monotonic() - start:.0f} s; "
          + (f"{len(failed)} FAILED" if failed else "nothing failed"))
    # Again where a long log ends.
    for result in failed:
        print(f"! {result.client}: {result.check}: {result.note}")
    return 1 if failed or not results else 0


def run_checks(context, client, chosen):
    return [perform(context, client, name, function)
            for kind in client.kinds for name, function in CHECKS[kind].items()
            if wanted(name, chosen)]


def wanted(name, only):
    return not only or any(name.startswith(part) for part in only)


def print_table(results, markdown):
    rows = [["client", "check", "verdict", "time", "note"]]
    for one in results:
        rows.append([one.client, one.check, one.verdict, f"{one.seconds:.1f} s", one.note])
    widths = [max(len(cells[column]) for cells in rows) for column in range(4)] + [0]
    bar = " | " if markdown else "  "
    for number, cells in enumerate(rows):
        line = bar.join(cell.ljust(width) for cell, width in zip(cells, widths))
        print(f"| {line} |" if markdown else line.rstrip())
        if markdown and number == 0:
            print("|" + "---|" * len(cells))


if __name__ == "__main__":
    sys.exit(main())
