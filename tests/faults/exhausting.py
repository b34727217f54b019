"""Attacks that leave the server without descriptors, or without threads."""

import os
import resource
import time

from frame import LEFT_BY_A_CROWD, Skip, scenario
from herd import Herd, give, take
from wire import publish, request, status_of


@scenario(
    "descriptor exhaustion",
    "2,000 connections with half a header at 1,024 descriptors, for 6 s, coming back when closed",
    flags=("--header-timeout", "2s", "--tick", "200ms"),
    within=None,
    left=LEFT_BY_A_CROWD,
)
def descriptors(context):
    """Half a header, because what says nothing at all is kept from us by the kernel."""
    server = context.server
    reached = 0
    with server.limited(resource.RLIMIT_NOFILE, 1024):
        with Herd(context.address) as herd:
            end = time.monotonic() + 6
            while time.monotonic() < end:
                herd.fill(2000)
                for sock, _, readable, writable in herd.ready():
                    if readable and take(sock) == b"":
                        herd.drop(sock)
                    elif writable:
                        give(sock, b"GET / HTTP/1.1\r\nHost:")
                        herd.only_read(sock)
                reached = max(reached, server.figures().descriptors)
    context.note(f"{herd.opened:,} connections, {reached} descriptors at the height")
    context.check(reached >= 1000, f"the attack reached only {reached} descriptors of 1,024")


@scenario(
    "thread exhaustion",
    "room for 20 more threads, and 300 clients of each kind that want one",
    flags=("--tick", "200ms"),
    within=None,
)
def threads(context):
    """The limit counts all threads of a user: of the server's own, or else of whoever runs this."""
    server = context.server
    others = tasks_of(server.pid) - server.figures().threads
    # Not what it has now: idle threads of an attack before would leave too much room.
    most = others + context.result.before.threads + 20
    try:
        before = server.set_limit(resource.RLIMIT_NPROC, most)
    except PermissionError as error:
        raise Skip(f"the server's thread limit cannot be set: {error}") from error
    try:
        answers = want_threads(context.address)
    finally:
        server.set_limit(resource.RLIMIT_NPROC, before)
    context.note(f"answered {answers}")
    served = answers.get(200, 0)
    context.check(served < 600, f"the limit does not hold: {served} of 900 were served")
    # 408: a body that did not come, to one that had a thread.
    strange = set(answers) - {200, 408, 503}
    context.check(not strange, f"whoever gets no thread is told 503, but answered {answers}")


def want_threads(address):
    """900 clients for five seconds. Returns how they were answered."""
    kinds = [
        request("GET", "/events?topic=none"),
        request("GET", "/healthz", close=True),
        publish("none", b"x" * 5000)[:-5000],
    ]
    answers = {}
    with Herd(address) as herd:
        for number in range(900):
            herd.open(kinds[number % 3])
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for sock, first, readable, writable in herd.ready():
                if writable:
                    give(sock, first)
                    herd.only_read(sock)
                elif readable:
                    data = take(sock)
                    status = status_of(data or b"")
                    if status:
                        answers[status] = answers.get(status, 0) + 1
                    if data == b"":
                        herd.drop(sock)
    return answers


def tasks_of(pid):
    """How many threads the user of this process has in all."""
    user = os.stat(f"/proc/{pid}").st_uid
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass  # ended meanwhile
    return count
