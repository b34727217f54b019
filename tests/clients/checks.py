"""What a check is, and how one is run."""

import time
import traceback
from dataclasses import dataclass, field

from driver import Skip
from tools import Missing

CHECKS = {}


@dataclass
class Context:
    """What a check may ask for besides its client."""

    binary: str
    flags: tuple = ()  # for every server, such as --deflate
    compresses: bool = False
    notes: list = field(default_factory=list)  # of the check that is running


@dataclass
class Result:
    """One row of the table."""

    client: str
    check: str
    verdict: str = "passed"
    note: str = ""
    seconds: float = 0.0


def check(kind, name):
    """Registers a function as a check of clients of a kind."""

    def register(function):
        CHECKS.setdefault(kind, {})[name] = function
        return function

    return register


def perform(context, client, name, function):
    """Runs one check with one client and returns its Result."""
    result = Result(client.name, name)
    start = time.monotonic()
    context.notes = []
    try:
        if name in client.lacks:
            raise Skip(client.lacks[name])
        function(context, client)
        result.note = "; ".join(context.notes)
    except (Skip, Missing) as reason:
        result.verdict, result.note = "SKIPPED", str(reason)
    except Exception as error:  # whatever went wrong, the other checks are run
        frame = traceback.extract_tb(error.__traceback__)
        place = next((one for one in reversed(frame) if one.filename.endswith("_checks.py")), frame[-1])
        result.verdict = "FAILED"
        what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        result.note = f"{place.name}, line {place.lineno}: {what or place.line}"
    result.seconds = time.monotonic() - start
    return result
