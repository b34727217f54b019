"""The rules of event streams (WHATWG HTML, section 9.2), each with events that put it to the test.

Whatever is published, every reader must read it back: `Rule.published` goes to POST /publish,
`Rule.read` is what must come out of a real parser. Where `read` is None, publishing is refused,
because the stream has no way to say it. `python3 tests/clients/rules.py` prints the table.
"""

from dataclasses import dataclass

SAME = object()


@dataclass
class Rule:
    rule: str
    what: str
    published: str | bytes
    read: object = SAME  # the data as published
    name: str | None = None

    def wanted(self):
        """(name, data) as a reader has it."""
        data = self.published if self.read is SAME else self.read
        return self.name or "message", data


def lines(rule, what, published, **rest):
    """Line ends are made LF: a stream cannot tell them apart, so nobody may see a difference."""
    return Rule(rule, what, published, published.replace("\r\n", "\n").replace("\r", "\n"), **rest)


LINE_ENDS = "lines end with CRLF, LF or CR"
DATA = "data lines are joined by LF, the last LF is removed"
EMPTY = "an event without data lines is none; one empty line is data"
SPACE = "one space after the colon is removed"
FIELD = "field name, colon, value; names are case-sensitive"
COMMENT = "lines that start with a colon are comments"
BOM = "one byte order mark at the start of the stream is ignored, and no other"
UTF8 = "the stream is UTF-8, whatever way it is cut"
ID = "an id is ignored if it holds NUL; it stays until the next"
NAME = "event names the event; without one it is message"
RETRY = "retry sets the time to come back, if it is digits only"

RULES = [
    lines(LINE_ENDS, "LF in data", "a\nb"),
    lines(LINE_ENDS, "CR in data", "a\rb"),
    lines(LINE_ENDS, "CRLF in data", "a\r\nb"),
    lines(LINE_ENDS, "LF, then CR", "a\n\rb"),
    lines(LINE_ENDS, "two CRs, then LF", "a\r\r\nb"),
    lines(LINE_ENDS, "CR at the end", "a\r"),
    Rule(LINE_ENDS, "VT, FF, FS, NEL, LS and PS are none", "a\vb\fc\x1cd\x85e\u2028f\u2029g"),
    Rule(DATA, "one line", "one"),
    Rule(DATA, "three lines", "one\ntwo\nthree"),
    Rule(DATA, "LF at the end is data", "one\n"),
    Rule(DATA, "empty lines within", "one\n\n\ntwo"),
    Rule(DATA, "empty lines around", "\n\none\n\n"),
    Rule(EMPTY, "empty data", ""),
    Rule(EMPTY, "empty data with a name", "", name="empty"),
    Rule(EMPTY, "nothing but LF", "\n"),
    Rule(EMPTY, "nothing but three LFs", "\n\n\n"),
    Rule(SPACE, "no space lost at the start", " one"),
    Rule(SPACE, "several spaces, in every line", "   one\n  two \n "),
    Rule(SPACE, "a tab is not a space", "\tone"),
    Rule(SPACE, "spaces only", "  "),
    Rule(FIELD, "data that looks like fields", "data: x\nid: 99\nevent: x\nretry: 1"),
    Rule(FIELD, "the same after an empty line", "a\n\ndata: b\nid: 99-0\nevent: gap\n\n"),
    Rule(FIELD, "names of fields without a colon", "data\nid\nretry\nevent"),
    Rule(FIELD, "colons", ":\n::\na:b:c:"),
    Rule(FIELD, "JSON", '{"a":[1,2,{"b":"c:d"}],"e":"\\r\\n"}'),
    Rule(COMMENT, "data that looks like one", ": not a comment\n:"),
    Rule(BOM, "at the start of data", "\ufeffone"),
    Rule(BOM, "in the middle, and in the next line", "a\ufeffb\n\ufeffc"),
    Rule(UTF8, "two, three and four bytes", "é € 𝄞 👩‍👩‍👧"),
    Rule(UTF8, "the largest of each length", "\x7f\u07ff\uffff\U0010ffff"),
    Rule(UTF8, "around the surrogates", "\ud7ff\ue000"),
    Rule(UTF8, "the replacement character itself", "\ufffd"),
    Rule(UTF8, "control characters", "a\0b\x01c\x1bd\x7fe"),
    Rule(UTF8, "decomposed stays so", "e\u0301 ≠ é"),
    Rule(UTF8, "200 KB of three bytes each, cut anywhere", "€" * 66_667),
    Rule(UTF8, "10,000 lines", "\n".join(f"line {number}" for number in range(10_000))),
    Rule(UTF8, "one line of 300 KB", "x" * 300_000),
    Rule(UTF8, "what is not UTF-8 is refused", b"a\xffb", None),
    Rule(UTF8, "a surrogate is refused", b"a\xed\xa0\x80b", None),
    Rule(UTF8, "overlong is refused", b"a\xc0\x80b", None),
    Rule(NAME, "a name", "x", name="update"),
    Rule(NAME, "message by name", "x", name="message"),
    Rule(NAME, "not the name of the event before", "x"),
    Rule(NAME, "spaces around", "x", name="  spaced name "),
    Rule(NAME, "colons", "x", name=": a:b"),
    Rule(NAME, "more than ASCII", "x", name="änderung €"),
    Rule(NAME, "case", "x", name="Update"),
    Rule(NAME, "open, which the connection uses too", "x", name="open"),
    Rule(NAME, "error, likewise", "x", name="error"),
    Rule(NAME, "LF in it is refused", "x", None, name="a\nb"),
    Rule(NAME, "CR in it is refused", "x", None, name="a\rb"),
    Rule(NAME, "NUL in it is refused", "x", None, name="a\0b"),
    Rule(NAME, "an injected event is refused", "x", None, name="a\n\ndata: b\n\n"),
]
NAMES = sorted({rule.name for rule in RULES if rule.name and rule.read is not None})

# Rules about what nobody can publish: the tests that hold the server to them.
ELSEWHERE = {
    LINE_ENDS: "tests/sse.rs: a stream, chunk by chunk (it has LF only)",
    BOM: "tests/sse.rs: a stream, chunk by chunk (it begins with none)",
    COMMENT: "heartbeats are not seen; tests/sse.rs: an idle client gets comments",
    ID: "in every event above; connection lost twice: misses nothing",
    RETRY: "connection lost twice: misses nothing (no sooner); tests/shutdown.rs: seen off",
}

if __name__ == "__main__":
    print("| rule | published | read back |\n|---|---|---|")
    for one in RULES:
        print(f"| {one.rule} | {one.what} | {'refused' if one.read is None else 'as it was'} |")
    for rule, checks in ELSEWHERE.items():
        print(f"| {rule} | – | {checks} |")
