"""What a scenario is, and how one is performed: its servers, proxies and clients are started, it happens,
all is repaired, and every client's log is held against what was acknowledged."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import Callable, NamedTuple

import tools
from crowd import Crowd
from processes import HAProxy, Nginx, Node
from verify import Rules, Verdict, verify

HOME = os.path.join(tools.ROOT, "target", "cluster")
SCENARIOS = {}
# Events go for this long before anything happens, and after it has.
BEFORE, AFTER = 1.5, 2.5
# How long a publisher may need for its last event when all is repaired, and clients for theirs.
PUBLISH_TIMEOUT, SETTLE_TIMEOUT = 15.0, 15.0
# What comes twice may come a little later.
LATE = 0.5


class Route(NamedTuple):
    """A way to a server."""

    name: str
    address: tuple
    is_direct: bool


@dataclass
class Scenario:
    name: str
    what: str
    run: Callable  # takes the Cluster; all that it breaks it repairs
    prepare: Callable  # takes the Cluster; starts the store and returns the flags of each server
    rules: Rules


@dataclass
class Result:
    """One row of the table."""

    scenario: Scenario
    folder: str
    clients: int = 0
    events: int = 0
    visits: int = 0
    answers: dict = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0
    notes: list = field(default_factory=list)

    @property
    def failed(self):
        return bool(self.verdict.problems)


def scenario(name, what, prepare, **rules):
    """Registers a function as a scenario."""

    def register(function):
        SCENARIOS[name] = Scenario(name, what, function, prepare, Rules(**rules))
        return function

    return register


class Cluster:
    """The servers of one scenario and all around them."""

    def __init__(self, binary, folder, stack):
        self.binary, self.folder, self.stack = binary, folder, stack
        self.nodes, self.redis, self.crowd = [], [], None
        self.variables = None  # of the first server
        self.notes = []

    def start(self, prepare, clients):
        """The servers, the proxies, the clients; returns when every client has been greeted."""
        for number, flags in enumerate(prepare(self)):
            variables = self.variables if number == 0 else None
            node = Node(self.binary, self.folder, f"server-{number + 1}", *flags, variables=variables)
            self.nodes.append(self.stack.enter_context(node))
        routes = [Route(node.name, node.address, True) for node in self.nodes]
        for kind in (Nginx, HAProxy):
            proxy = self.stack.enter_context(kind(self.folder, self.nodes))
            for name, port in (("alternating", proxy.port), ("sticky", proxy.sticky)):
                routes.append(Route(f"{proxy.name}, {name}", ("127.0.0.1", port), False))
        self.crowd = self.stack.enter_context(Crowd(routes, clients // 2, clients // 2))
        if not self.crowd.wait(self.crowd.started, 20):
            raise AssertionError("not every client has been greeted within 20 s")

    def wait(self, seconds):
        """Lets time pass; fails at once where a server that should run has ended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for node in self.nodes:
                node.check_alive()
            time.sleep(min(left, 0.1))

    @contextlib.contextmanager
    def goes_on(self, *statuses):
        """Meanwhile new streams are served, and publishing is answered with one of these statuses at
        least once."""
        visits, answers = self.crowd.visits(), self.crowd.answers()
        yield
        came = self.crowd.visits() - visits
        if came < len(self.crowd.clients) / 10:
            raise AssertionError(f"only {came} streams began meanwhile")
        more = self.crowd.answers() - answers
        if statuses and not any(more[status] for status in statuses):
            raise AssertionError(f"no publisher was answered {statuses}, but {dict(more)}")


def perform(chosen, binary, clients):
    """Runs one scenario and returns its Result."""
    start = time.monotonic()
    folder = os.path.join(HOME, chosen.name.replace(" ", "-").replace(",", ""))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    result = Result(chosen, folder, clients)
    cluster = None
    try:
        with contextlib.ExitStack() as stack:
            cluster = Cluster(binary, folder, stack)
            cluster.start(chosen.prepare, clients)
            cluster.crowd.publishing = True
            cluster.wait(BEFORE)
            try:
                chosen.run(cluster)
                cluster.wait(AFTER)
                problems = []
            except (AssertionError, OSError, RuntimeError) as error:
                problems = [f"{type(error).__name__}: {error}"]
            problems += finish(cluster.crowd)
        judge(result, cluster.crowd, problems)
    except (AssertionError, OSError, RuntimeError, tools.Missing) as error:
        result.verdict.problems.insert(0, f"could not be set up: {error}")
    result.notes = cluster.notes if cluster else []
    if result.failed and cluster:
        keep(folder, cluster, result)
    result.seconds = time.monotonic() - start
    return result


def finish(crowd):
    """The last events reach everybody. Returns what went wrong."""
    problems = []
    if not crowd.pause(PUBLISH_TIMEOUT):
        problems.append(f"an event was not acknowledged within {PUBLISH_TIMEOUT:.0f} s of the end")
    if not crowd.settle(SETTLE_TIMEOUT):
        problems.append(f"a client has not got the last event within {SETTLE_TIMEOUT:.0f} s")
    time.sleep(LATE)
    return problems


def judge(result, crowd, problems):
    """Fills the result in. The crowd has ended: nobody writes to the logs."""
    acknowledged = crowd.acknowledged()
    result.events, result.visits = len(acknowledged), crowd.visits()
    result.answers = dict(crowd.answers())
    result.verdict = verify([client.log for client in crowd.clients], acknowledged, crowd.attempts(),
                            result.scenario.rules)
    for publisher in crowd.publishers:
        problems += publisher.problems
    result.verdict.problems = problems + crowd.problems + result.verdict.problems
    if not acknowledged:
        result.verdict.problems.append("no event was acknowledged")


def keep(folder, cluster, result):
    """Leaves the logs of clients and publishers beside those of the servers."""
    with open(os.path.join(folder, "problems.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(result.verdict.problems) + "\n")
    if not cluster.crowd:
        return
    with open(os.path.join(folder, "clients.jsonl"), "w", encoding="utf-8") as file:
        for client in cluster.crowd.clients:
            log = client.log
            json.dump({"name": log.name, "start": log.start, "entries": log.entries}, file)
            file.write("\n")
    with open(os.path.join(folder, "acknowledged.jsonl"), "w", encoding="utf-8") as file:
        for key, known in sorted(cluster.crowd.acknowledged().items()):
            file.write(json.dumps([*key, known.upper, known.exact]) + "\n")
