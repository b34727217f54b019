"""Holds the clients' logs against what the publishers know. Nothing here knows of servers.

Every acknowledged event that is newer than a client's start must be in its log once, and ids rise. A gap
excuses what is missing between the id before it and its own, and only in a scenario that allows gaps.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

# What stands in an entry instead of (publisher, number).
GAP = None


class Entry(NamedTuple):
    id: tuple  # (milliseconds, sequence); of a gap: from here on nothing is missing
    key: tuple | None  # (publisher, number), or GAP
    at: float  # when it came, in seconds


@dataclass
class Log:
    """What one client has received, in order."""

    name: str
    start: tuple | None = None  # the id of its first greeting: it misses nothing that is newer
    started_at: float = 0.0
    entries: list = field(default_factory=list)


class Acknowledged(NamedTuple):
    upper: tuple  # the id in the answer
    exact: bool  # whether that is the event's own id; otherwise it has a lower one


@dataclass
class Rules:
    """What a scenario's row of the table allows."""

    gaps: bool = False  # gaps may be announced
    # The store may forget what it had, idempotency keys too: an event that was sent again may then have
    # a second id, behind a gap.
    forgets: bool = False


@dataclass
class Verdict:
    lost: int = 0
    twice: int = 0
    gaps: int = 0
    silence: float = 0.0  # the longest time between two events of a client, in seconds
    problems: list = field(default_factory=list)


def verify(logs, acknowledged, attempts, rules):
    """`acknowledged` maps (publisher, number) to its Acknowledged, `attempts` to how often it was sent."""
    verdict = Verdict()
    ids = ids_of_events(logs, verdict)
    for log in logs:
        if log.start is None:
            verdict.problems.append(f"{log.name} was never greeted")
            continue
        seen = check_order(log, acknowledged, attempts, rules, verdict)
        check_complete(log, seen, acknowledged, ids, verdict)
        times = [log.started_at] + [entry.at for entry in log.entries]
        verdict.silence = max([verdict.silence] + [b - a for a, b in zip(times, times[1:])])
    for key, known in acknowledged.items():
        # Where keys may be forgotten, the answer may belong to the second one.
        wrong = known.exact and key in ids and known.upper not in ids[key]
        if wrong and not rules.forgets:
            verdict.problems.append(f"{key} was acknowledged as {known.upper}, but came as {ids[key]}")
    if verdict.gaps and not rules.gaps:
        verdict.problems.append(f"{verdict.gaps} gaps were announced, and none is allowed")
    if verdict.lost:
        verdict.problems.append(f"{verdict.lost} events are lost")
    if verdict.twice:
        verdict.problems.append(f"{verdict.twice} events came twice")
    return verdict


def ids_of_events(logs, verdict):
    """The ids under which each event came to anyone. One id is one event, for all clients."""
    ids, events = {}, {}
    for log in logs:
        for entry in log.entries:
            if entry.key is not GAP:
                ids.setdefault(entry.key, set()).add(entry.id)
                if events.setdefault(entry.id, entry.key) != entry.key:
                    verdict.problems.append(f"{log.name}: {entry.id} is {entry.key}, and elsewhere "
                                            f"{events[entry.id]}")
    return ids


def check_order(log, acknowledged, attempts, rules, verdict):
    """Ids rise, each publisher's numbers rise, nothing comes twice. Returns the keys that came."""
    seen = {}  # key: how many gaps there were before it
    newest, newest_acknowledged, numbers, gaps = log.start, log.start, {}, 0
    for entry in log.entries:
        if entry.key is GAP:
            gaps += 1
            # It may lead back behind an event that was never acknowledged, and is kept nowhere.
            if entry.id < newest_acknowledged:
                verdict.problems.append(f"{log.name}: a gap up to {entry.id} after {newest}")
            newest = max(newest, entry.id)
            continue
        if entry.id <= newest:
            verdict.problems.append(f"{log.name}: {entry.id} came after {newest}")
        newest = max(newest, entry.id)
        if entry.key in acknowledged:
            newest_acknowledged = max(newest_acknowledged, entry.id)
        publisher, number = entry.key
        if entry.key not in attempts:
            verdict.problems.append(f"{log.name}: {entry.key} was never published")
        # The first one's acknowledgement may have been lost with the store's memory of it.
        again = entry.key in seen
        excused = again and rules.forgets and gaps > seen[entry.key] and attempts[entry.key] > 1
        if again and not excused:
            verdict.twice += 1
        elif not again and number < numbers.get(publisher, 0):
            verdict.problems.append(f"{log.name}: {entry.key} came after {numbers[publisher]}")
        numbers[publisher] = max(number, numbers.get(publisher, 0))
        seen[entry.key] = gaps
    verdict.gaps += gaps
    return seen


def check_complete(log, seen, acknowledged, ids, verdict):
    """Every acknowledged event after the start is there, or a gap covers it."""
    covered = gaps_of(log)
    for key, known in acknowledged.items():
        if key in seen:
            continue
        # Where the answer did not tell its id, other clients may have it.
        places = ids.get(key) or {known.upper}
        missing = [place for place in places if place > log.start]
        if missing and not any(low < place <= high for place in missing for low, high in covered):
            verdict.lost += 1
            if verdict.lost <= 3:
                verdict.problems.append(f"{log.name} has not got {key}, {min(missing)}")


def gaps_of(log):
    """What its gaps cover: (the id before, the gap's own)."""
    newest, covered = log.start, []
    for entry in log.entries:
        if entry.key is GAP:
            covered.append((newest, entry.id))
        newest = max(newest, entry.id)
    return covered


def self_test():
    """Plants each fault in a good log, and raises AssertionError where it is not found."""
    keys = [(publisher, number) for number in range(1, 51) for publisher in "ab"]
    ids = {key: (1000 + index // 2, index % 2) for index, key in enumerate(keys)}
    acknowledged = {key: Acknowledged(ids[key], True) for key in keys}
    attempts = dict.fromkeys(keys, 1)
    good = [Entry(ids[key], key, float(index)) for index, key in enumerate(keys)]
    gap = Entry(ids[keys[44]], GAP, 44.0)

    def judge(entries, start=(999, 0), attempts=attempts, **rules):
        # Others have all of it: a fault of one client among them must be found.
        logs = [Log("good", (999, 0), 0.0, good), Log("planted", start, 0.0, entries)]
        return verify(logs, acknowledged, attempts, Rules(**rules))

    def expect(what, verdict, lost=0, twice=0, gaps=0, problems=True):
        found = (verdict.lost, verdict.twice, verdict.gaps, bool(verdict.problems))
        wanted = (lost, twice, gaps, problems)
        assert found == wanted, f"{what}: found {found}, planted {wanted}: {verdict.problems}"

    expect("a good log", judge(good), problems=False)
    expect("a late start", judge(good[10:], start=good[9].id), problems=False)
    expect("a loss", judge(good[:40] + good[41:]), lost=1)
    expect("a loss at the start", judge(good[1:]), lost=1)
    expect("a loss at the end", judge(good[:-1]), lost=1)
    expect("a duplicate", judge(good[:41] + good[40:]), twice=1)
    expect("a late duplicate", judge(good + [good[40]]), twice=1)
    again = Entry((2000, 0), keys[40], 200.0)
    expect("a duplicate with another id", judge(good + [again]), twice=1)
    expect("a swap", judge(good[:40] + [good[41], good[40]] + good[42:]))
    numbers = [Entry(one.id, keys[{40: 42, 42: 40}.get(index, index)], one.at)
               for index, one in enumerate(good)]
    expect("numbers swapped, ids not", judge(numbers))
    expect("an unannounced gap", judge(good[:40] + good[45:]), lost=5)
    expect("the same with gaps allowed", judge(good[:40] + good[45:], gaps=True), lost=5)
    announced = good[:40] + [gap] + good[45:]
    expect("a gap where none is allowed", judge(announced), gaps=1)
    expect("a gap where it is", judge(announced, gaps=True), gaps=1, problems=False)
    expect("a gap that covers too little", judge(good[:40] + [gap] + good[47:], gaps=True),
           gaps=1, lost=2)
    expect("a gap that goes back", judge(good[:50] + [gap] + good[50:], gaps=True), gaps=1)
    made_up = good + [Entry((2000, 0), ("a", 99), 200.0)]
    expect("an event that nobody published", judge(made_up))
    unknown = {**attempts, ("a", 51): 1}
    expect("one that was not acknowledged",
           judge(good + [Entry((2000, 0), ("a", 51), 200.0)], attempts=unknown), problems=False)
    expect("the same twice", judge(good + [Entry((2000, n), ("a", 51), 200.0) for n in (0, 1)],
                                   attempts=unknown), twice=1)
    torn = good + [Entry((2000, 0), ("a", 51), 200.0), Entry(ids[keys[-1]], GAP, 201.0)]
    expect("a gap behind what was not acknowledged", judge(torn, attempts=unknown, gaps=True), gaps=1,
           problems=False)
    wrong = [Entry((one.id[0], one.id[1] + 10), one.key, one.at) for one in good]
    expect("other ids than acknowledged",
           verify([Log("planted", (999, 0), 0.0, wrong)], acknowledged, attempts, Rules()))
    reused = good[:-1] + [Entry((2000, 0), keys[-1], 200.0)]
    reused_log = Log("reused", (999, 0), 0.0, good + [Entry((2000, 0), ("a", 51), 200.0)])
    expect("one id for two events", verify([Log("planted", (999, 0), 0.0, reused), reused_log],
                                           acknowledged, unknown, Rules(forgets=True)))
    forgotten = good + [Entry((1999, 0), GAP, 200.0), again]
    sent_twice = {**attempts, keys[40]: 2}
    rules = {"gaps": True, "forgets": True}
    expect("published again behind a gap", judge(forgotten, attempts=sent_twice, **rules),
           gaps=1, problems=False)
    expect("there though sent once", judge(forgotten, **rules), gaps=1, twice=1)
    expect("nobody greeted it", verify([Log("planted")], acknowledged, attempts, Rules()))
