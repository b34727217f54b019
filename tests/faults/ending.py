"""The end of the server, and all attacks in one process."""

import contextlib
import time

from crowd import Crowd
from frame import SCENARIOS, Skip, check_log, course, run_attacks, Context
from namespaces import inside
from target import Sampler, Server

HALF = 500


@course("SIGTERM", f"SIGTERM under {HALF} SSE and {HALF} WebSocket clients, while events are published")
def sigterm(binary, result):
    """Exit code 0 within the drain time; everyone is told, and has every event until then."""
    drain = 5
    server = Server(binary, ["--drain", f"{drain}s"])
    crowd = None
    try:
        crowd = Crowd(server.address, HALF, HALF)
        context = Context(server, crowd, result, {})
        result.before = server.figures()
        sampler = Sampler(server)
        crowd.ask("publish")
        time.sleep(1)  # some twenty events
        code, seconds = server.terminate(drain + 5)
        result.during = sampler.stop()
        report = crowd.ask("see out", within=5)
        result.events, result.delay = report["published"], report["worst"]
        context.check(code == 0, f"the exit code is {code}")
        context.check(seconds <= drain + 1, f"it took {seconds:.1f} s")
        context.note(f"exit code {code} after {seconds * 1000:.0f} ms")
        context.check(report["published"] > 0, "not one event was published")
        result.failures += report["problems"][:5]
        told, retried = report["told"], report["retries"]
        context.check(told == HALF, f"{told} of {HALF} WebSocket clients got close code 1012")
        context.check(retried == HALF, f"{retried} of {HALF} SSE clients got a retry and the last chunk")
        context.check(report["open"] == 0, f"{report['open']} connections are still open")
        context.check(report["broken"] == 0, f"{report['broken']} connections were reset")
        check_log(context)
    finally:
        if crowd:
            crowd.kill()
        server.kill()


@course("all in one process", "every attack above on one server, one after another")
def all_in_one(binary, result):
    """What an attack leaves behind shows when others follow."""
    attacks = [attack for attack in SCENARIOS.values() if attack.run and not attack.alone]
    with contextlib.ExitStack() as stack:
        try:
            options = stack.enter_context(inside())
        except Skip as reason:
            options = {}
            attacks = [attack for attack in attacks if not attack.namespace]
            result.notes.append(f"without half-open clients: {reason}")
        run_attacks(binary, result, attacks, options, lived=True)
