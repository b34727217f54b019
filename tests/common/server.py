"""A real threadcast server as a child process, and plain requests to it."""

import contextlib
import http.client
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import time
import urllib.parse


class Server:
    """Starts a server and waits until it listens. `port` makes it come back where it was;
    `variables` are put into its environment."""

    def __init__(self, binary, *flags, listen="127.0.0.1", port=0, log=subprocess.DEVNULL,
                 variables=None, **as_user):
        # Events that nobody published are in the way, unless they are asked for.
        tick = () if "--tick" in flags else ("--tick", "0")
        command = [binary, "--listen", f"{listen}:{port}", *tick, *flags]
        # Variables of the caller's would be flags.
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("THREADCAST_")} | (variables or {})
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=log, text=True, env=environment, **as_user)
        # The line is written in one piece.
        came = select.select([self.process.stdout], [], [], 10)[0]
        line = self.process.stdout.readline() if came else ""
        found = re.fullmatch(r"listening on http://(.*):(\d+)\n", line)
        if not found:
            Server.kill(self)
            raise RuntimeError(f"the server did not start: {line!r}, exit {self.process.returncode}")
        # Whoever listens on all addresses is reached on loopback.
        host, self.port = found[1].replace("0.0.0.0", "127.0.0.1"), int(found[2])
        self.address, self.url = (host, self.port), f"http://{host}:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def publish(self, data, **query):
        """Publishes one event and returns its id."""
        return publish(self.url, data, **query)[0]

    def cpu(self):
        """Seconds of processor time it has taken."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Asks it to end, as an operator does, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def kill(self):
        """Ends it at once, as a crash does."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def names_flag(binary, flag):
    """Whether the server has a flag: those under way are not there yet."""
    text = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True).stdout
    return re.search(rf"(^|\s){re.escape(flag)}(\s|$)", text, re.MULTILINE) is not None


def request(url, method="GET", body=None, source=None, headers=None):
    """One request; returns (status, header fields with lower-case names, body as text).

    `source` is the address of ours that it comes from: any in 127/8 will do, and a proxy sees it.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10,
                                            source_address=(source, 0) if source else None)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, fields, answer.read().decode()
    finally:
        connection.close()


def publish(url, data, source=None, headers=None, **query):
    """Publishes one event; returns its id and how many it reached."""
    where = f"{url}/publish?{urllib.parse.urlencode(query)}"
    body = data.encode() if isinstance(data, str) else data
    status, _, text = request(where, "POST", body, source, headers)
    if status != 200:
        raise RuntimeError(f"POST /publish answered {status}: {text}")
    answer = json.loads(text)
    return answer["id"], answer["subscribers"]


def until(condition, what, timeout=10.0):
    """Waits for a condition and returns what it returned; fails by name when it stays false."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.01)
    return result


def free_port():
    """A port that is free now, for a program that cannot be asked which one it got. Below the range from
    which the kernel takes ports for connections: one of those could be gone before the program listens."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            port = random.randrange(10_000, 32_000)
            with socket.create_server(("127.0.0.1", port)):
                return port
    raise RuntimeError("of 100 ports none is free")
