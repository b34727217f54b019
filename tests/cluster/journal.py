"""What happens to one server with a journal, and to its files. Each scenario repairs all that it breaks."""

import json
import os
import resource
import subprocess
import time

import server
import tools
from crowd import TOPIC
from frame import scenario
from processes import build_clock, set_back
from server import until

KILLS = 10
# How many bytes the end of the last record loses: a bit, about half, nearly all.
CUTS = (1, 60, 100)
DISK_BYTES = 4 << 20
FULL_SECONDS = 4.0


def in_a_journal(cluster):
    """One server that keeps its history in a folder. Its clock can be set back."""
    cluster.variables, cluster.clock = build_clock(cluster.folder)
    cluster.journal = os.path.join(cluster.folder, "journal")
    return [("--journal", cluster.journal)]


def on_a_small_disk(cluster):
    """The same, on a file system of its own, where this may mount one."""
    flags = in_a_journal(cluster)
    os.makedirs(cluster.journal)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", cluster.journal]
    try:
        tools.run(mount, "no file system of its own")
        cluster.stack.callback(subprocess.run, ["umount", "--lazy", cluster.journal], check=False)
        cluster.is_mounted = True
    except tools.Missing as why:
        cluster.is_mounted = False
        cluster.notes.append(f"{why}: the limit of file sizes instead")
    return flags


@scenario("journal, kill -9", "ten times; after the fifth the clock has gone back an hour", in_a_journal)
def journal_killed(cluster):
    node = cluster.nodes[0]
    with cluster.goes_on(200):
        for number in range(KILLS):
            node.kill()
            if number == KILLS // 2:
                set_back(cluster)
            node.start()
            cluster.wait(0.8)


@scenario("journal, torn record", "the last record is cut off in the middle, three times", in_a_journal,
          gaps=True)
def journal_torn(cluster):
    node = cluster.nodes[0]
    for number, cut in enumerate(CUTS, 1):
        # The record that is torn was never acknowledged: its publisher does not get as far.
        if not cluster.crowd.pause():
            raise AssertionError("an event was not acknowledged within 10 s")
        torn = ("torn", number)
        cluster.crowd.unacknowledged.add(torn)
        server.publish(node.url, json.dumps({"p": torn[0], "n": torn[1], "pad": "x" * 100}), topic=TOPIC)
        node.kill()
        path = last_segment(cluster.journal)
        os.truncate(path, os.path.getsize(path) - cut)
        node.start()
        cluster.crowd.publishing = True
        cluster.wait(1.5)


def last_segment(folder):
    """The file that was written to last: it ends with the last record."""
    files = [entry for entry in os.scandir(folder) if entry.name.startswith("events-")]
    return max(files, key=lambda entry: entry.stat().st_mtime_ns).path


@scenario("journal, full disk", "the disk is full for 4 s; then the server is killed and starts again",
          on_a_small_disk)
def journal_full(cluster):
    node = cluster.nodes[0]
    with cluster.goes_on(507, 503):
        free = fill(cluster)
        until(lambda: cluster.crowd.answers()[507] + cluster.crowd.answers()[503] > 3,
              "publishing is refused")
        cluster.wait(FULL_SECONDS)
        free()
    with cluster.goes_on(200):
        cluster.wait(2)
        # What is in the journal is whole.
        node.kill()
        node.start()
        cluster.wait(2)


def fill(cluster):
    """Nothing more can be written. Returns what ends that."""
    if cluster.is_mounted:
        ballast = os.path.join(cluster.journal, "ballast")
        with open(ballast, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                return lambda: os.unlink(ballast)
    process = cluster.nodes[0].server.process.pid
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    size = os.path.getsize(last_segment(cluster.journal))
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, before[1]))
    return lambda: resource.prlimit(process, resource.RLIMIT_FSIZE, before)
