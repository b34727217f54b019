"""HTTP requests: right ones, requests that two programs could read differently, and plain nonsense.

Each case is (name, how many requests of it must be executed, the bytes). REFUSE, none: a response of
2xx (or 101) would be dangerous behind a proxy, because what is one request to the proxy could be two
to the server, or the other way round; or it breaks a rule that RFC 9112 calls a MUST; or this server
has no such resource. Any other number: so many responses of 2xx must come, in one connection.
"""

import os

from wire import AUTHORIZED

REFUSE, ACCEPT, BOTH = 0, 1, 2
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
# An offer of HTTP/2 that a server may ignore (RFC 9110 section 7.8).
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA")


def lengths():
    """How long is the body?"""
    both = 4 + len(SMUGGLED)
    yield "length and chunked", REFUSE, post(length(b"15"), TE, body=CHUNKS)
    yield "chunked and length", REFUSE, post(TE, length(b"5"), body=CHUNKS + SMUGGLED)
    yield "length over chunks", REFUSE, post(length(b"%d" % both), TE, body=b"0\r\n\r\n" + SMUGGLED)
    yield "two lengths", REFUSE, post(length(b"5"), length(b"6"), body=b"hello" + SMUGGLED)
    yield "equal lengths", REFUSE, post(length(b"5"), length(b"5"), body=b"hello")
    yield "list of lengths", REFUSE, post(length(b"5, 6"), body=b"hello" + SMUGGLED)
    yield "list of equal lengths", REFUSE, post(length(b"5, 5"), body=b"hello")
    yield "leading zeros", ACCEPT, post(length(b"0000000000005"), body=b"hello")
    for value in (b"+5", b"-5", b"0x5", b"5a", b"", b"1e3", b"5.0", b"5;", b"5 5", b'"5"', b"_5"):
        name = f"length {value.decode()!r}"
        yield name, REFUSE, post(length(value), body=b"hello" + SMUGGLED)
    for number in (10**14, 6 * 10**18, 2**63, 2**64 - 1, 2**64, 2**64 + 5, 10**40):
        yield f"length {number}", REFUSE, post(length(b"%d" % number), body=b"hello")
        name = f"upgrade with length {number}"
        yield name, REFUSE, post(length(b"%d" % number), b"Connection: upgrade", body=b"hello")
    yield "space before colon", REFUSE, post(b"Content-Length : 5", body=b"hello" + SMUGGLED)
    yield "body of GET", ACCEPT, get(b"/healthz", length(b"%d" % len(SMUGGLED))) + SMUGGLED
    yield "no length", ACCEPT, post(body=b"hello")
    yield "upgrade, chunked", ACCEPT, post(TE, b"Connection: upgrade", body=CHUNKS)
    head = post(length(b"5"), b"Connection: upgrade", body=b"hello")
    yield "upgrade, more than its length", BOTH, head + get()


def codings():
    """Is it chunked, and how long are the chunks?"""
    for coding in (b"xchunked", b"identity", b"chunked, identity", b"gzip, chunked", b"chunked;a",
                   b"chun ked", b"\x0bchunked", b"", b"cow"):
        field = b"Transfer-Encoding: " + coding
        yield f"coding {coding.decode()!r}", REFUSE, post(field, body=CHUNKS + SMUGGLED)
    yield "coding twice", REFUSE, post(TE, TE, body=CHUNKS)
    yield "coding, then another", REFUSE, post(TE, b"Transfer-Encoding: cow", body=CHUNKS)
    yield "space before the colon", REFUSE, post(b"Transfer-Encoding : chunked", body=CHUNKS)
    yield "folded coding", REFUSE, post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS)
    yield "tab before coding", ACCEPT, post(b"Transfer-Encoding:\tchunked", body=CHUNKS)
    yield "chunked in HTTP/1.0", REFUSE, post(TE, body=CHUNKS, version=b"HTTP/1.0")
    sizes = (b"-5", b"0x5", b"+5", b"", b"g", b"5g", b"fffffffffffffffff", b"10000000000000005",
             b"ffffffffffffffff", b"7fffffffffffffff", b"5\n", b"_5")
    for size in sizes:
        body = size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED
        yield f"chunk size {size.decode()!r}", REFUSE, post(TE, body=body)
    yield "space before chunk size", REFUSE, post(TE, body=b" " + CHUNKS)
    yield "chunk extension", ACCEPT, post(TE, body=CHUNKS.replace(b"5", b"5;a=b"))
    yield "LF in extension", REFUSE, post(TE, body=CHUNKS.replace(b"5", b"5;a\nb"))
    yield "chunks with bare LF", REFUSE, post(TE, body=CHUNKS.replace(b"\r\n", b"\n"))
    yield "chunk longer than said", REFUSE, post(TE, body=CHUNKS.replace(b"hello", b"hello!"))
    yield "chunk shorter than said", REFUSE, post(TE, body=CHUNKS.replace(b"hello", b"hell"))
    yield "trailer", ACCEPT, post(TE, body=b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n")
    yield "length in trailer", ACCEPT, post(TE, body=b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n")


def fields():
    """Header fields."""
    yield "no Host", REFUSE, get(host=None)
    yield "two Hosts", REFUSE, get(b"/healthz", b"Host: other")
    yield "empty Host", ACCEPT, get(host=b"Host:")
    yield "Host with a path", REFUSE, get(host=b"Host: a/b")
    yield "Host with a space", REFUSE, get(host=b"Host: a b")
    yield "space in a name", REFUSE, get(b"/healthz", b"X Y: 1")
    yield "no colon", REFUSE, get(b"/healthz", b"nonsense")
    yield "empty name", REFUSE, get(b"/healthz", b": x")
    yield "odd name", REFUSE, get(b"/healthz", b"X(Y): 1")
    yield "folded field", REFUSE, get(b"/healthz", b"X-A: b\r\n c")
    yield "folded length", REFUSE, post(b"X-A: b\r\n Content-Length: 5", body=b"hello")
    yield "space before the first", REFUSE, get(host=b" Host: localhost")
    yield "NUL in a value", REFUSE, get(b"/healthz", b"X-A: a\0b")
    yield "NUL in a name", REFUSE, get(b"/healthz", b"X\0A: a")
    yield "CR in a value", REFUSE, get(b"/healthz", b"X-A: a\rX-Injected: 1")
    yield "LF in a value", REFUSE, get(b"/healthz", b"X-A: a\nX-Injected: 1")
    yield "length behind LF", REFUSE, post(b"X-A: a\nContent-Length: 5", body=b"hello" + SMUGGLED)
    origin = b"Origin: http://localhost\rX-Injected: 1"
    yield "CR in an origin", REFUSE, post(length(b"5"), origin, body=b"hello")
    yield "control character", REFUSE, get(b"/healthz", b"X-A: a\x01b")
    yield "bytes over 127", ACCEPT, get(b"/healthz", b"X-A: caf\xe9")
    yield "tab in a value", ACCEPT, get(b"/healthz", b"X-A:\ta\tb\t")
    yield "empty value", ACCEPT, get(b"/healthz", b"X-A:")
    yield "bare LF", REFUSE, get().replace(b"\r\n", b"\n")
    yield "bare CR", REFUSE, get().replace(b"\r\n", b"\r")
    yield "unknown expectation", REFUSE, get(b"/healthz", b"Expect: 200-ok")
    yield "10,000 fields", REFUSE, get(b"/healthz", *[b"a: b"] * 10_000)
    yield "99 fields and Host", ACCEPT, get(b"/healthz", *[b"a: b"] * 99)
    yield "h2c offer", ACCEPT, get(b"/healthz", *H2C)
    yield "h2c offer with a body", ACCEPT, post(length(b"5"), *H2C, body=b"hello")
    yield "h2c offer with chunks", ACCEPT, post(TE, *H2C, body=CHUNKS)
    yield "h2c offer in HTTP/1.0", ACCEPT, get(b"/healthz", *H2C, version=b" HTTP/1.0")
    websocket = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
                 b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    yield "WebSocket with a body", REFUSE, get(b"/ws", *websocket, length(b"5")) + b"hello"
    yield "continue", ACCEPT, post(length(b"5"), b"Expect: 100-continue", body=b"hello")



def targets():
    """Request lines."""
    yield "absolute form", ACCEPT, get(b"http://localhost/healthz")
    yield "absolute form, other host", ACCEPT, get(b"http://other/healthz")
    yield "absolute form, no host", REFUSE, get(b"http:///healthz")
    yield "absolute form, user", REFUSE, get(b"http://u@localhost/healthz")
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
    yield "double slash", REFUSE, get(b"//healthz")
    yield "dot segment", REFUSE, get(b"/./healthz")
    yield "encoded path", REFUSE, get(b"/%68ealthz")
    yield "fragment", REFUSE, get(b"/healthz#x")
    yield "NUL in the target", REFUSE, get(b"/healthz\0")
    yield "byte over 127 in the path", REFUSE, get(b"/\x80")
    yield "bytes over 127 in the query", ACCEPT, get("/healthz?café".encode())
    yield "Latin-1 in the query", REFUSE, get(b"/healthz?caf\xe9")
    yield "control character in the target", REFUSE, get(b"/health\x01z")
    yield "CR in the target", REFUSE, get(b"/healthz\rX-Injected: 1")
    yield "over-long target", REFUSE, get(b"/" + b"a" * 20_000)
    yield "over-long query", REFUSE, get(b"/healthz?" + b"a" * 20_000)
    yield "very long target", REFUSE, get(b"/" + b"a" * 70_000)
    yield "space in the target", REFUSE, get(b"/health z")
    yield "two spaces", REFUSE, get(b" /healthz")
    yield "tabs", REFUSE, get().replace(b" ", b"\t")
    yield "more than a version", REFUSE, get(version=b" HTTP/1.1 HTTP/1.1")
    yield "line before it", ACCEPT, b"\r\n" + get()
    yield "space before it", REFUSE, b" " + get()
    # (HTTP/2.0 and 3.0 have a scenario of their own.)
    for version in (b" HTTP/1.10", b" http/1.1", b" HTP/1.1", b" HTTP/1,1", b" HTTP/11", b"",
                    b" HTTP/0.9", b" HTTP/1.2"):
        yield f"version {version.decode()!r}", REFUSE, get(version=version)
    yield "lower case method", REFUSE, get().replace(b"GET", b"get")
    yield "NUL in the method", REFUSE, get().replace(b"GET", b"G\0T")
    yield "long method", REFUSE, get().replace(b"GET", b"G" * 10_000)
    for method in (b"TRACE", b"CONNECT", b"DELETE", b"PATCH", b"PRI"):
        yield f"method {method.decode()}", REFUSE, get().replace(b"GET", method)


def several():
    """Several requests in one connection, answered one after another (RFC 9112 section 9.3.2)."""
    plain = post(length(b"5"), body=b"hello")
    yield "two requests", BOTH, get() + get()
    yield "behind a body", 3, plain + plain + get()
    yield "behind chunks", BOTH, post(TE, body=CHUNKS) + get()
    yield "behind a trailer", BOTH, post(TE, body=CHUNKS[:-2] + b"X-A: b\r\n\r\n") + get()
    yield "behind a body of nothing", BOTH, post(length(b"0")) + get()
    yield "behind no length", BOTH, post() + get()
    yield "behind an h2c offer", BOTH, post(length(b"5"), *H2C, body=b"hello") + get()
    yield "empty lines between", BOTH, get() + b"\r\n\r\n" + get()
    yield "empty lines before", BOTH, b"\r\n\r\n" + get() + get()
    fields = (b"Connection: keep-alive", b"Connection: x, y")
    yield "several Connection fields", BOTH, get(b"/healthz", *fields) + get()
    yield "behind close", ACCEPT, get(b"/healthz", *fields, b"Connection: z, Close") + SMUGGLED
    yield "behind HTTP/1.0", ACCEPT, get(version=b" HTTP/1.0") + SMUGGLED
    kept = get(b"/healthz", b"Connection: Keep-Alive", version=b" HTTP/1.0")
    yield "kept in HTTP/1.0", BOTH, kept + get()
    yield "behind an unread body", ACCEPT, get(b"/healthz", length(b"5")) + b"hello" + SMUGGLED
    yield "100 requests", 100, get() * 100


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
    for part in (lengths, codings, fields, targets, several, nonsense):
        yield from part()
