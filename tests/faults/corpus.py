"""Malformed HTTP: requests that two programs could read differently, and plain nonsense.

REFUSE: an answer of 2xx (or 101) would be dangerous behind a proxy, because what is one request
to the proxy could be two to the server, or the other way round; or it breaks a rule that RFC 9112
calls a MUST. LENIENT: it should be refused, but tiny_http has dropped what is wrong with it before the
server sees the request; it is harmless only because a connection serves one request and is closed,
which is checked. REPORT: whatever the answer, it is only listed.
"""

import os

from wire import AUTHORIZED

REFUSE, LENIENT, REPORT = "refuse", "lenient", "report"
# What an attacker would like to get executed behind a proxy's back.
SMUGGLED = (
    f"POST /publish?topic=smuggled HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZED}\r\n"
    "Content-Length: 1\r\n\r\n!"
).encode()
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def post(*fields, body=b"", version=b"HTTP/1.1", first=b"Host: localhost"):
    lines = [b"POST /publish?topic=corpus " + version, first, AUTHORIZED.encode(), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(target=b"/healthz", *fields, version=b" HTTP/1.1", host=b"Host: localhost"):
    lines = [b"GET " + target + version, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def length(value):
    return b"Content-Length: " + value


TE = b"Transfer-Encoding: chunked"


def lengths():
    """How long is the body?"""
    both = 4 + len(SMUGGLED)
    yield "length and chunked", REFUSE, post(length(b"15"), TE, body=CHUNKS)
    yield "chunked and length", REFUSE, post(TE, length(b"5"), body=CHUNKS + SMUGGLED)
    yield "length over chunks", REFUSE, post(length(b"%d" % both), TE, body=b"0\r\n\r\n" + SMUGGLED)
    yield "two lengths", REFUSE, post(length(b"5"), length(b"6"), body=b"hello" + SMUGGLED)
    yield "equal lengths", REPORT, post(length(b"5"), length(b"5"), body=b"hello")
    yield "list of lengths", REFUSE, post(length(b"5, 6"), body=b"hello" + SMUGGLED)
    yield "list of equal lengths", REPORT, post(length(b"5, 5"), body=b"hello")
    yield "leading zeros", REPORT, post(length(b"0000000000005"), body=b"hello")
    for value in (b"+5", b"-5", b"0x5", b"5a", b"", b"1e3", b"5.0", b"5;", b"5 5", b'"5"', b"_5"):
        name = f"length {value.decode()!r}"
        yield name, REFUSE, post(length(value), body=b"hello" + SMUGGLED)
    for number in (10**14, 6 * 10**18, 2**63, 2**64 - 1, 2**64, 2**64 + 5, 10**40):
        yield f"length {number}", REFUSE, post(length(b"%d" % number), body=b"hello")
        name = f"upgrade with length {number}"
        yield name, REFUSE, post(length(b"%d" % number), b"Connection: upgrade", body=b"hello")
    yield "space before colon", REFUSE, post(b"Content-Length : 5", body=b"hello" + SMUGGLED)
    yield "body of GET", REPORT, get(b"/healthz", length(b"%d" % len(SMUGGLED))) + SMUGGLED
    yield "no length", REPORT, post(body=b"hello")
    yield "upgrade, chunked", REFUSE, post(TE, b"Connection: upgrade", body=CHUNKS)
    head = post(length(b"5"), b"Connection: upgrade", body=b"hello")
    yield "upgrade, more than its length", REPORT, head + SMUGGLED


def codings():
    """Is it chunked, and how long are the chunks?"""
    for coding in (b"xchunked", b"identity", b"chunked, identity", b"gzip, chunked", b"chunked;a",
                   b"chun ked", b"\x0bchunked", b"", b"cow"):
        field = b"Transfer-Encoding: " + coding
        rule = LENIENT if coding[:1] == b"\x0b" else REFUSE
        yield f"coding {coding.decode()!r}", rule, post(field, body=CHUNKS + SMUGGLED)
    yield "coding twice", REFUSE, post(TE, TE, body=CHUNKS)
    yield "coding, then another", REFUSE, post(TE, b"Transfer-Encoding: cow", body=CHUNKS)
    yield "space before the colon", REFUSE, post(b"Transfer-Encoding : chunked", body=CHUNKS)
    yield "folded coding", REFUSE, post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS)
    yield "tab before coding", REPORT, post(b"Transfer-Encoding:\tchunked", body=CHUNKS)
    yield "chunked in HTTP/1.0", REFUSE, post(TE, body=CHUNKS, version=b"HTTP/1.0")
    sizes = (b"-5", b"0x5", b"+5", b"", b"g", b"5g", b"fffffffffffffffff", b"10000000000000005",
             b"ffffffffffffffff", b"7fffffffffffffff", b"5\n", b"_5")
    for size in sizes:
        body = size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED
        rule = LENIENT if size in (b"+5", b"5\n") else REFUSE
        yield f"chunk size {size.decode()!r}", rule, post(TE, body=body)
    yield "space before chunk size", REPORT, post(TE, body=b" " + CHUNKS)
    yield "chunk extension", REPORT, post(TE, body=CHUNKS.replace(b"5", b"5;a=b"))
    yield "LF in extension", LENIENT, post(TE, body=CHUNKS.replace(b"5", b"5;a\nb"))
    yield "chunks with bare LF", REFUSE, post(TE, body=CHUNKS.replace(b"\r\n", b"\n"))
    yield "chunk longer than said", REFUSE, post(TE, body=CHUNKS.replace(b"hello", b"hello!"))
    yield "chunk shorter than said", REFUSE, post(TE, body=CHUNKS.replace(b"hello", b"hell"))
    yield "trailer", REPORT, post(TE, body=b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n")
    yield "length in trailer", REPORT, post(TE, body=b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n")


def fields():
    """Header fields."""
    yield "no Host", REFUSE, get(host=None)
    yield "two Hosts", REFUSE, get(b"/healthz", b"Host: other")
    yield "empty Host", REPORT, get(host=b"Host:")
    yield "Host with a path", REPORT, get(host=b"Host: a/b")
    yield "Host with a space", REPORT, get(host=b"Host: a b")
    yield "space in a name", REFUSE, get(b"/healthz", b"X Y: 1")
    yield "no colon", REFUSE, get(b"/healthz", b"nonsense")
    yield "empty name", REFUSE, get(b"/healthz", b": x")
    yield "odd name", REPORT, get(b"/healthz", b"X(Y): 1")
    yield "folded field", REFUSE, get(b"/healthz", b"X-A: b\r\n c")
    yield "folded length", LENIENT, post(b"X-A: b\r\n Content-Length: 5", body=b"hello")
    yield "space before the first", LENIENT, get(host=b" Host: localhost")
    yield "NUL in a value", REFUSE, get(b"/healthz", b"X-A: a\0b")
    yield "NUL in a name", REFUSE, get(b"/healthz", b"X\0A: a")
    yield "CR in a value", REFUSE, get(b"/healthz", b"X-A: a\rX-Injected: 1")
    yield "LF in a value", REFUSE, get(b"/healthz", b"X-A: a\nX-Injected: 1")
    yield "length behind LF", REFUSE, post(b"X-A: a\nContent-Length: 5", body=b"hello" + SMUGGLED)
    origin = b"Origin: http://localhost\rX-Injected: 1"
    yield "CR in an origin", REFUSE, post(length(b"5"), origin, body=b"hello")
    yield "control character", REPORT, get(b"/healthz", b"X-A: a\x01b")
    yield "bytes over 127", REPORT, get(b"/healthz", b"X-A: caf\xe9")
    yield "bare LF", REFUSE, get().replace(b"\r\n", b"\n")
    yield "bare CR", REFUSE, get().replace(b"\r\n", b"\r")
    yield "unknown expectation", REFUSE, get(b"/healthz", b"Expect: 200-ok")
    yield "10,000 fields", REPORT, get(b"/healthz", *[b"a: b"] * 10_000)
    yield "h2c upgrade", REPORT, get(
        b"/healthz", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"
    )


def targets():
    """Request lines."""
    yield "absolute form", REFUSE, get(b"http://localhost/healthz")
    yield "absolute form, other host", REFUSE, get(b"http://other/healthz")
    for target in (b"healthz", b"*", b"localhost:80", b"?topic=t", b"\\healthz", b""):
        yield f"target {target.decode()!r}", REFUSE, get(target)
    for target in (
        b"/../../../../../../etc/passwd",
        b"/..%2f..%2f..%2f..%2f..%2fetc/passwd",
        b"/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        b"/..\\..\\..\\etc\\passwd",
        b"/%2fetc%2fpasswd",
        b"//etc/passwd",
        b"/index.html/../../Cargo.toml",
        b"/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        b"/healthz%00",
        b"/index.html%00.js",
        b"/healthz%0d%0aX-Injected:%201",
        b"/events?topic=a%0d%0aX-Injected:%201",
        b"/%zz",
    ):
        yield f"target {target.decode()}", REFUSE, get(target)
    yield "double slash", REPORT, get(b"//healthz")
    yield "dot segment", REPORT, get(b"/./healthz")
    yield "encoded path", REPORT, get(b"/%68ealthz")
    yield "fragment", REPORT, get(b"/healthz#x")
    yield "NUL in the target", REFUSE, get(b"/healthz\0")
    yield "byte over 127 in the target", REFUSE, get(b"/\x80")
    yield "control character in the target", REFUSE, get(b"/health\x01z")
    yield "CR in the target", REFUSE, get(b"/healthz\rX-Injected: 1")
    yield "over-long target", REFUSE, get(b"/" + b"a" * 20_000)
    yield "over-long query", REPORT, get(b"/healthz?" + b"a" * 20_000)
    yield "very long target", REFUSE, get(b"/" + b"a" * 70_000)
    yield "space in the target", REFUSE, get(b"/health z")
    yield "two spaces", REFUSE, get(b" /healthz")
    yield "tabs", REFUSE, get().replace(b" ", b"\t")
    yield "more than a version", LENIENT, get(version=b" HTTP/1.1 HTTP/1.1")
    yield "line before it", REPORT, b"\r\n" + get()
    yield "space before it", REPORT, b" " + get()
    # (HTTP/2.0 and 3.0 have a scenario of their own.)
    versions = (b" HTTP/1.10", b" http/1.1", b" HTP/1.1",
                b" HTTP/1,1", b" HTTP/11", b"")
    for version in versions:
        yield f"version {version.decode()!r}", REFUSE, get(version=version)
    for version in (b" HTTP/0.9", b" HTTP/1.2"):
        yield f"version {version.decode()!r}", REPORT, get(version=version)
    yield "lower case method", REFUSE, get().replace(b"GET", b"get")
    yield "NUL in the method", REFUSE, get().replace(b"GET", b"G\0T")
    yield "long method", REFUSE, get().replace(b"GET", b"G" * 10_000)
    for method in (b"TRACE", b"CONNECT", b"DELETE", b"PATCH", b"PRI"):
        yield f"method {method.decode()}", REFUSE, get().replace(b"GET", method)


def nonsense():
    """Other protocols, and noise."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield "TLS hello", REFUSE, hello + os.urandom(512)
    yield "SSH banner", REFUSE, b"SSH-2.0-OpenSSH_9.6\r\n\r\n"
    yield "zeros", REFUSE, b"\0" * 2000
    yield "line ends", REFUSE, b"\r\n" * 1000
    for number in range(8):
        yield f"noise {number}", REFUSE, os.urandom(3000) + b"\r\n\r\n"


def corpus():
    for part in (lengths, codings, fields, targets, nonsense):
        yield from part()
