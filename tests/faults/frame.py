"""What every scenario has in common: the server, the good clients, the figures, the verdict."""

import contextlib
import json
import resource
import time
from dataclasses import dataclass, field

from crowd import Crowd, CrowdError
from target import Sampler, Server
from wire import AUTHORIZED, connect, exchange, request, reset

# Back means: no more than so many more than before. One idle thread always waits for a job, and one
# request may be in the middle of something.
FEW_THREADS = 4
FEW_DESCRIPTORS = 4
# MiB: the events that came in between, and code that is in memory since it was needed. A crowd that
# fills all places leaves more on a fresh server, once: glibc keeps 160 stacks of ended threads, with
# two pages each, and a heap of as many pieces as there were connections (measured: up to 4.8).
LEFT, LEFT_BY_A_CROWD = 3, 6
# An idle thread ends after five seconds, and a connection lingers for one.
SETTLE = 10.0
MEMBERS = 100
# What the server has for itself: with one thread and one descriptor for each client that is all.
OWN_THREADS = 16
OWN_DESCRIPTORS = 24
# Events that the server keeps by default.
HISTORY = 1000
# Connections that a living server has seen end in a reset.
HUNG_UP = 200
SCENARIOS = {}


class Skip(Exception):
    """The scenario cannot be run here; the message says why."""


@dataclass
class Attack:
    """One scenario: what it does, on which server, and what must hold."""

    name: str
    run: object  # called with a Context; None where the scenario has a course of its own
    what: str
    course: object = None
    flags: tuple = ()
    # Within how many seconds a new client is served during the attack, on processors that it shares
    # with the attacker; None: descriptors or threads are exhausted, so there can be no promise.
    within: float | None = 2.0
    peak: int = 64  # MiB that the attack may cost at its height
    left: int = LEFT  # MiB that it may leave
    namespace: object = None
    source: str | None = None  # where visitors come from, if not from the attacker's address
    alone: bool = False  # its flags would change what other attacks do: only on a server of its own


@dataclass
class Result:
    """One row of the table."""

    name: str
    what: str = ""
    verdict: str = "survived"
    failures: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    before: object = None
    during: object = None
    after: object = None
    events: int = 0
    worst: dict = field(default_factory=dict)
    delay: float | None = None
    again: float | None = None
    seconds: float = 0.0


class Context:
    """What an attack works with."""

    def __init__(self, server, crowd, result, options):
        self.server, self.crowd, self.result = server, crowd, result
        self.sampler = None
        self.address = server.address
        self.options = options

    def fail(self, text):
        self.result.failures.append(text)

    def note(self, text):
        self.result.notes.append(text)

    def check(self, holds, text):
        if not holds:
            self.fail(text)


def scenario(name, what, **settings):
    """Registers a function as an attack."""

    def register(function):
        SCENARIOS[name] = Attack(name, function, what, **settings)
        return function

    return register


def course(name, what, **settings):
    """Registers a scenario that starts its servers itself: called with the binary and a Result."""

    def register(function):
        SCENARIOS[name] = Attack(name, None, what, course=function, **settings)
        return function

    return register


def poll(condition, timeout, interval=0.02):
    """Waits for a condition; returns whether it came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def perform(attack, binary):
    """Runs one scenario and returns its Result."""
    result = Result(attack.name, attack.what)
    start = time.monotonic()
    try:
        if attack.course:
            attack.course(binary, result)
        else:
            surroundings = attack.namespace() if attack.namespace else contextlib.nullcontext({})
            with surroundings as options:
                run_attacks(binary, result, [attack], options or {})
    except Skip as reason:
        result.verdict = "SKIPPED"
        result.notes.append(str(reason))
    except (CrowdError, OSError, RuntimeError) as error:
        result.failures.append(f"{type(error).__name__}: {error}")
    if result.failures:
        result.verdict = "FAILED"
    result.seconds = time.monotonic() - start
    return result


def run_attacks(binary, result, attacks, options, lived=False):
    """One server, the good clients, and one attack after another. `lived`: the server has had an
    ordinary life before."""
    settings = {}
    for attack in attacks:
        settings.update(zip(attack.flags[::2], attack.flags[1::2]))
    flags = [word for setting in settings.items() for word in setting]
    server = Server(binary, flags, options.get("listen", "127.0.0.1"))
    crowd = None
    try:
        if lived:
            live_for_a_while(server)
        crowd = Crowd(server.address, MEMBERS // 2, MEMBERS // 2)
        context = Context(server, crowd, result, options)
        warm_up(context)
        before = result.before
        sampler = context.sampler = Sampler(server)
        for attack in attacks:
            try:
                attack_once(context, attack)
            except Skip as reason:
                if len(attacks) == 1:
                    raise
                context.note(f"without {attack.name}: {reason}")
            if not server.alive():
                raise RuntimeError("the server's process has ended")
        result.during = sampler.stop()
        settle(context, before, LEFT if lived else max(attack.left for attack in attacks))
        leave(context)
        check_log(context)
    except (CrowdError, OSError, RuntimeError):
        explain(result, server)
        raise
    finally:
        if crowd:
            crowd.kill()
        server.kill()


def live_for_a_while(server):
    """What any server has behind it after its first hour: a thousand clients that came, listened,
    and left, and some that hung up in the middle. What that takes is no attack's doing, such as
    code that has been needed (the kernel counts it once it was)."""
    crowd = Crowd(server.address, 500, 500)
    try:
        crowd.ask("publish")
        crowd.ask("visit")
        for _ in range(HUNG_UP):
            with connect(server.address) as sock:
                sock.sendall(request("GET", "/healthz"))
                reset(sock)
        time.sleep(1)
        crowd.ask("visited")
    finally:
        crowd.kill()
    poll(lambda: server.figures().threads <= OWN_THREADS, SETTLE)


def fill_history(address):
    """What the history keeps is not an attack's doing."""
    line = json.dumps({"topic": "past", "data": "x" * 100}) + "\n"
    past = request(
        "POST", "/publish", AUTHORIZED, "Content-Type: application/x-ndjson",
        body=(line * 100).encode(),
    )
    for _ in range(HISTORY // 100):
        status, answer = exchange(address, past, 5.0)
        if status != 200:
            raise RuntimeError(f"events could not be published: {status} {answer[:100]}")


def warm_up(context):
    """Ordinary operation for a moment: what that takes is not the attack's doing."""
    fill_history(context.address)
    context.crowd.ask("publish")
    context.crowd.ask("visit")
    time.sleep(0.5)
    context.crowd.ask("visited")
    context.crowd.ask("pause")
    # Visitors' threads end by themselves; then only the members' and the server's own are left.
    poll(lambda: context.server.figures().threads <= MEMBERS + OWN_THREADS, SETTLE)
    before = context.result.before = context.server.figures()
    context.check(
        before.threads <= MEMBERS + OWN_THREADS and before.descriptors <= MEMBERS + OWN_DESCRIPTORS,
        f"{MEMBERS} clients cost {before.threads} threads and {before.descriptors} descriptors",
    )
    context.crowd.ask("resume")


def attack_once(context, attack):
    """The attack with visitors around it, and whether new clients are served after it."""
    result = context.result
    context.crowd.ask("visit", source=attack.source)
    context.sampler.begin()
    known = len(result.failures)
    try:
        attack.run(context)
    finally:
        visited = context.crowd.ask("visited")
    rise = context.sampler.rise()
    context.check(
        rise <= attack.peak << 10,
        f"memory rose by {mebibytes(rise)} MiB, {attack.peak} are allowed",
    )
    for kind, seconds in visited["worst"].items():
        result.worst[kind] = max(result.worst.get(kind, 0.0), seconds)
    # Without descriptors there can be no promise.
    limit = context.server.soft_limit(resource.RLIMIT_NOFILE)
    exhausted = context.sampler.highest.descriptors > 0.9 * limit
    if exhausted and attack.within is not None:
        context.note(f"{attack.name}: descriptors were exhausted: the machine is busy")
    if attack.within is not None and not exhausted:
        worst = max(visited["worst"].values())
        context.check(visited["served"] > 0, "no new client was served during the attack")
        context.check(
            worst <= attack.within,
            f"{attack.name}: a new client was served only after {worst:.2f} s",
        )
        if visited["failures"]:
            count, first = len(visited["failures"]), visited["failures"][0]
            context.fail(f"{attack.name}: {count} new clients were not served, the first: {first}")
    elif visited["failures"]:
        context.note(f"{len(visited['failures'])} new clients not served during it")
    # Generous beyond the two seconds, to be able to say how late it was.
    again = context.crowd.ask("come back", within=15)["seconds"]
    if again is None:
        context.fail(f"{attack.name}: 15 s after the attack new clients are still not served")
    else:
        result.again = max(result.again or 0.0, again)
        context.check(again <= 2.0, f"{attack.name}: new clients served {again:.1f} s after it")
    for index in range(known, len(result.failures)):
        if not result.failures[index].startswith(attack.name):
            result.failures[index] = f"{attack.name}: {result.failures[index]}"


def settle(context, before, left):
    """Waits until threads, descriptors and memory are back; `left` MiB more may stay."""
    server, result = context.server, context.result
    # Traffic keeps idle threads alive.
    context.crowd.ask("pause")
    start = time.monotonic()
    allowed = {
        "threads": before.threads + FEW_THREADS,
        "descriptors": before.descriptors + FEW_DESCRIPTORS,
        "memory": before.memory + (left << 10),
    }

    def too_many():
        now = server.figures()
        return [name for name, most in allowed.items() if getattr(now, name) > most]

    back = poll(lambda: not too_many(), SETTLE, 0.05)
    after = result.after = server.figures()
    if back:
        context.note(f"threads, descriptors and memory back after {time.monotonic() - start:.1f} s")
    context.note(f"memory afterwards {mebibytes(after.memory - before.memory)} MiB above before")
    for name in [] if back else too_many():
        unit = " KiB" if name == "memory" else ""
        context.fail(
            f"{SETTLE:.0f} s after the attack: {name} {getattr(after, name):,}{unit}, before it "
            f"{getattr(before, name):,}"
        )
    context.crowd.ask("resume")


def leave(context):
    """The good clients' verdict, and a clean end."""
    result = context.result
    report = context.crowd.ask("finish")
    result.events, result.delay = report["published"], report["worst"]
    result.failures += report["problems"][:5]
    if len(report["problems"]) > 5:
        context.fail(f"… and {len(report['problems']) - 5} more of these")
    context.check(report["published"] > 0, "not one event could be published")
    unsettled = report["refused"] + report["unanswered"]
    if unsettled:
        context.note(f"{unsettled} publications were not accepted")
    context.crowd.kill()  # the clients are gone before the server is: it need not drain
    code, seconds = context.server.terminate()
    context.check(code == 0, f"after SIGTERM the server ended with {code} in {seconds:.1f} s")


def check_log(context):
    """No attack may make the server panic, or break its pipe to tiny_http."""
    lines = context.server.log().splitlines()
    for mark in ("panicked", "pipe to tiny_http"):
        found = [line for line in lines if mark in line]
        if found:
            context.fail(f"{len(found)} lines of the log say '{mark}', the first: {found[0][:160]}")


def explain(result, server):
    """What is known when a scenario ends early."""
    if not server.alive():
        result.failures.append(f"the server has ended with {server.process.returncode}")
    tail = server.log().strip().splitlines()[-3:]
    if tail:
        result.notes.append("log: " + " / ".join(tail)[:300])


def mebibytes(kibibytes):
    return f"{kibibytes / 1024:.1f}"
