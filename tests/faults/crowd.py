"""The well-behaved clients, the publisher and the visitors, in a process of their own.

A process of its own because an attacker keeps Python's one interpreter lock busy: in one process
the good clients would starve, and look as if the server had kept them waiting. It is told what to
do by one JSON line each on its standard input, and answers each with one.
"""

import json
import os
import selectors
import subprocess
import sys
import time

TOPIC = "t"
# The server's own metrics are of use where no publisher gets through: without descriptors.
TOPICS = f"topic={TOPIC}&topic=metrics"


class CrowdError(Exception):
    """The crowd could not be brought together, or its process has ended."""


class Crowd:
    """The harness's end."""

    def __init__(self, address, sse=50, websocket=50):
        settings = {"address": address, "sse": sse, "websocket": websocket}
        self.child = subprocess.Popen(
            [sys.executable, "-B", os.path.abspath(__file__), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It finds the same modules.
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        )
        answer = self.read(60)
        if not answer.get("ready"):
            self.kill()
            raise CrowdError(f"the good clients could not connect: {answer}")

    def ask(self, command, timeout=60, **details):
        line = json.dumps({"do": command, **details}) + "\n"
        try:
            self.child.stdin.write(line.encode())
            self.child.stdin.flush()
        except OSError as error:
            raise CrowdError(f"the crowd's process has ended: {error}") from error
        return self.read(timeout)

    def read(self, timeout):
        """One line. Unbuffered on our side, so that waiting for the descriptor is enough."""
        fd = self.child.stdout.fileno()
        deadline = time.monotonic() + timeout
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise CrowdError(f"no answer of the crowd's process within {timeout} s")
                chunk = os.read(fd, 1 << 16)
                if not chunk:
                    raise CrowdError("the crowd's process has ended")
                data += chunk
        return json.loads(data)

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()


def serve(settings):
    """The child's end: its whole life."""
    from members import Members
    from visitors import Publisher, Visitors, come_back

    address = tuple(settings["address"])
    try:
        members = Members(address, settings["sse"], settings["websocket"], TOPICS)
    except OSError as error:
        return answer({"ready": False, "why": str(error)})
    answer({"ready": True})
    publisher = Publisher(address, TOPIC)
    visitors = None
    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "publish":
                publisher.start()
                answer({})
            case "pause":
                publisher.pause()
                answer({})
            case "resume":
                publisher.resume()
                answer({})
            case "visit":
                # During one attack, all that are not members come from the same address.
                publisher.source = command.get("source")
                visitors = Visitors(address, publisher.source)
                visitors.start()
                answer({})
            case "visited":
                answer(visitors.stop())
            case "come back":
                answer({"seconds": come_back(address, command["within"])})
            case "finish":
                publisher.stop()
                last = publisher.last
                members.wait(lambda: last is None or members.have_all(last), 10)
                members.stop()
                answer(report(members, publisher, may_end=False))
            case "see out":
                # The server is going: publications may fail, and every connection has to end.
                members.wait(lambda: all(m.ended for m in members.all), command["within"])
                publisher.stop()
                members.stop()
                answer(report(members, publisher, may_end=True))


def report(members, publisher, may_end):
    outcomes = list(publisher.outcomes.values())
    sse = [member for member in members.all if member.kind == "sse"]
    websocket = [member for member in members.all if member.kind == "ws"]
    return {
        "published": outcomes.count("ok"),
        "refused": outcomes.count("refused"),
        "unanswered": outcomes.count("unknown"),
        "problems": members.problems(publisher.outcomes, may_end),
        "worst": max((member.worst for member in members.all), default=0.0),
        "open": sum(not member.ended for member in members.all),
        "broken": sum("broken" in (member.ended or "") for member in members.all),
        "retries": sum(member.parser.retries > 0 and member.parser.is_whole for member in sse),
        "told": sum(member.close_code == 1012 for member in websocket),
    }


def answer(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
