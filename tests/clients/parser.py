"""A parser of event streams, line by line as WHATWG HTML section 9.2.6 has it.

Written from the standard alone, without a look at the server or at any other parser, so that it
can be a judge of both. `python3 tests/clients/parser.py` tries it on what is written below.
"""

import codecs
import re
from dataclasses import dataclass

BOM = "\ufeff"
LINE_END = re.compile("\r\n|\r|\n")


@dataclass
class Event:
    name: str
    data: str
    id: str


class Parser:
    """Fed with bytes in any pieces; gives the events that have become complete."""

    def __init__(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.rest = []  # of a line that has no end yet
        self.at_start = True
        self.after_cr = False  # a line feed that comes now belongs to the line end before
        self.retry = None
        self.comments = 0
        self.last_id = ""
        self.id_buffer, self.name, self.data = "", "", ""

    def feed(self, piece):
        text = self.decoder.decode(piece)
        if not text:
            return
        if self.at_start:  # one leading byte order mark is ignored
            self.at_start = False
            text = text.removeprefix(BOM)
        if self.after_cr:
            text = text.removeprefix("\n")
            self.after_cr = False
        start = 0
        for end in LINE_END.finditer(text):
            line = "".join(self.rest) + text[start:end.start()]
            self.rest, start = [], end.end()
            event = self.take(line)
            if event:
                yield event
        if text:
            self.after_cr = text.endswith("\r")
            self.rest.append(text[start:])

    def take(self, line):
        """One whole line. Returns an event where it completes one."""
        if line == "":
            return self.dispatch()
        if line.startswith(":"):
            self.comments += 1
            return None
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        if field == "event":
            self.name = value
        elif field == "data":
            self.data += value + "\n"
        elif field == "id":
            if "\0" not in value:
                self.id_buffer = value
        elif field == "retry":
            if value and all(digit in "0123456789" for digit in value):
                self.retry = int(value)
        return None

    def dispatch(self):
        self.last_id = self.id_buffer
        name, data = self.name, self.data
        self.name, self.data = "", ""
        if data == "":
            return None
        return Event(name or "message", data.removesuffix("\n"), self.last_id)


def check():
    """The examples of the standard, and its corners."""
    cases = [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
         [("message", "first event", "1"), ("message", "second event", "")]),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a\rdata: b\r\ndata: c\n\r\n", [("message", "a\nb\nc", "")]),
        (b"id: 1\0\ndata: a\n\nid: 2\n\ndata: b\n\n", [("message", "a", ""), ("message", "b", "2")]),
        (b"event: e\n\ndata: a\n\nevent: e\ndata: b\n\n", [("message", "a", ""), ("e", "b", "")]),
        (b"Data: a\n data: b\nunknown: c\n\n", []),
        (b"data: \xff\xe2\x82\n\n", [("message", "\ufffd\ufffd", "")]),
        ("data: a\u2028\u0085\x0b\x0c\0b\n\n".encode(), [("message", "a\u2028\u0085\x0b\x0c\0b", "")]),
    ]
    for stream, expected in cases:
        for size in (1, 2, 3, len(stream)):
            parser = Parser()
            pieces = [stream[start:start + size] for start in range(0, len(stream), size)]
            events = [event for piece in pieces for event in parser.feed(piece)]
            found = [(event.name, event.data, event.id) for event in events]
            assert found == expected, (stream, size, found)
    for value, retry in [(b"5", 5), (b"05", 5), (b"5s", None), (b"-5", None), (b"", None),
                         ("\u0665".encode(), None)]:
        parser = Parser()
        assert not list(parser.feed(b"retry: " + value + b"\n"))
        assert parser.retry == retry, value


if __name__ == "__main__":
    check()
    print("the parser does as the standard says")
