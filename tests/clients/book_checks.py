"""The code of the README and of the book's chapters: each command that asks the server is run, and must get
what the text beside it promises. What is not run here is in one list, with the reason."""

import glob
import json
import os
import re
import subprocess
import tempfile
import time

import tools
from bytes_checks import Output
from checks import check
from driver import Driver
from parser import Parser
from server import publish, request
from sse_checks import start

ADDRESS = "127.0.0.1:3000"
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND_IN_PROSE = re.compile(r"`(curl [^`]+)`")
# An id as the text shows one.
SAMPLE_ID = re.compile(r"\d{13}-\d+")

# Languages of which the book has one block, and the check that runs it.
RUN_ELSEWHERE = {
    "nginx": "proxies.NginxOfTheBook",
    "haproxy": "proxies.HAProxyOfTheBook",
    "caddy": "proxies.CaddyOfTheBook",
    "js": "tab_checks.one_for_all",
    "html": "tab_checks.one_for_all",
    "ini": "book_checks.the_unit_file",
}
BLOCKS_NOT_RUN = {
    "dockerfile": "needs a Docker daemon, and a registry",
}
NOT_RUN = {
    "cargo run": "starts the server that all of this talks to",
    "cargo test": "a step of .ci/run",
    "cargo run --release -p threadcast-bench -- --help": ".ci/run has the comparison instead",
    "cargo run --release -p threadcast-bench -- compare --quick": "takes minutes; .ci/run has --smoke",
    "cargo bench -p threadcast-bench": "takes minutes; .ci/run compiles it",
    "cargo build --release && python3 tests/faults/run.py": "two steps of .ci/run",
    "(cd tests/fuzz && cargo run --release -- --seconds 60)": "a step of .ci/run",
    "python3 tests/clients/run.py": "this suite",
    "python3 tests/cluster/run.py": "a step of .ci/run",
    "python3 tests/autobahn/run.py": "a step of .ci/run",
    "cargo new live && cd live": "the tutorial's programs are doctests",
    "cargo add threadcast --path ../threadcast --no-default-features": "the same",
    f"curl -N http://{ADDRESS}/countdown": "a program of the tutorial's; its doctest reads the same stream",
    "docker build -t threadcast .": BLOCKS_NOT_RUN["dockerfile"],
    "docker run --read-only --tmpfs /tmp --ulimit nofile=8192 --pids-limit 8192 -p 3000:3000"
    " -e THREADCAST_TOKEN=s3cret threadcast": BLOCKS_NOT_RUN["dockerfile"],
}
RUN = set()  # filled by @book


def chapters():
    """Name and text of the README and of each chapter."""
    paths = [os.path.join(tools.ROOT, "README.md"),
             *sorted(glob.glob(os.path.join(tools.ROOT, "src", "docs", "*.md")))]
    for path in paths:
        with open(path, encoding="utf-8") as file:
            yield os.path.basename(path), file.read()


def commands():
    """What the book says to type: each command, and the comment behind it or None."""
    found = {}
    for _, text in chapters():
        found.update((one, None) for one in COMMAND_IN_PROSE.findall(FENCE.sub("", text)))
        for language, code in FENCE.findall(text):
            if language == "sh":
                # A line that ends in `|` goes on in the next.
                for line in re.sub(r"\|\n\s*", "| ", code).splitlines():
                    command, _, comment = line.partition("  #")
                    found[command.strip()] = comment.strip() or None
    return found


def book(*texts):
    """Registers a check of these commands. It is called with a server, and with each command and its
    comment."""

    def register(function):
        RUN.update(texts)

        @check("bytes", f"the book: {function.__name__.replace('_', ' ')}")
        def run(context, client):
            known = commands()
            missing = [text for text in texts if text not in known]
            assert not missing, f"the book does not have {missing}"
            function(context, *((text, known[text]) for text in texts))

        return function

    return register


def typed(server, command):
    """What is typed to get this server, not the one of the book."""
    assert ADDRESS in command, command
    return ["sh", "-c", "exec " + command.replace(ADDRESS, f"127.0.0.1:{server.port}")]


def printed(server, command):
    """Runs a command, and returns the JSON that it prints."""
    done = subprocess.run(typed(server, command), capture_output=True, text=True, check=True, timeout=20)
    return json.loads(done.stdout)


def events(output, wanted):
    """Reads a stream until it has had an event whose data contains this; returns the data of all events."""
    def data():
        return [event.data for event in Parser().feed(output.body())]

    output.until(lambda _: any(wanted in one for one in data()))
    return data()


@check("bytes", "the book: each block and each command is run, or has a reason")
def everything_is_run(context, client):
    seen = set()
    for name, text in chapters():
        outside = FENCE.sub("", text)
        assert not re.search(r"^\n {4}", outside, re.MULTILINE), f"{name}: code without a fence"
        for language, _ in FENCE.findall(text):
            if language in RUN_ELSEWHERE or language in BLOCKS_NOT_RUN:
                assert language not in seen, f"{name}: a second block of {language}, which nothing runs"
                seen.add(language)
            else:
                # cargo test runs blocks of Rust: in chapters they are doctests, in the README an example.
                assert language in {"sh", "text", "rust"}, f"{name}: nothing runs a block of {language or 'no language'}"
    known = commands()
    missing = {*RUN_ELSEWHERE, *BLOCKS_NOT_RUN} - seen
    assert not missing, f"no block of {missing}"
    assert not RUN & set(NOT_RUN)
    strange = set(known) - RUN - set(NOT_RUN)
    assert not strange, f"neither run nor in NOT_RUN: {strange}"
    assert not set(NOT_RUN) - set(known), f"not in the book: {set(NOT_RUN) - set(known)}"
    context.notes.append(f"{len(RUN)} commands run, {len(NOT_RUN)} are not: see NOT_RUN")


@book(f"curl -N http://{ADDRESS}/events",
      f"curl -N 'http://{ADDRESS}/events?topic=chat'",
      f"curl -d 'hello' 'http://{ADDRESS}/publish?topic=chat'",
      f"curl -N -H 'Last-Event-ID: 1795375502624-0' http://{ADDRESS}/events")
def streams_publishing_and_replay(context, all_topics, one_topic, publishing, replay):
    # "System metrics, every 2 s" is the default.
    assert "every 2 s" in all_topics[1] and "one topic" in one_topic[1]
    with start(context, "--tick", "2s") as server:
        with Output(typed(server, all_topics[0])) as everything, \
                Output(typed(server, one_topic[0])) as chat:
            assert "system_metric" in events(everything, "system_metric")[-1]
            events(chat, "established")
            answer = printed(server, publishing[0])
            assert answer == {**json.loads(publishing[1]), "id": answer["id"]}, answer
            assert "hello" in events(everything, "hello")
            greeting, hello = events(chat, "hello")
            assert "established" in greeting and hello == "hello"
        # The server notices that they are gone a moment later.
        deadline = time.monotonic() + 20
        while json.loads(request(f"{server.url}/stats")[2])["clients"]["sse"] > 0:
            assert time.monotonic() < deadline, "the readers stay"
            time.sleep(0.01)
        missed = [publish(server.url, f"missed {number}")[1] for number in range(3)]
        assert missed == [0, 0, 0], "nobody is there"
        with Output(typed(server, SAMPLE_ID.sub(answer["id"], replay[0]))) as back:
            came = [data for data in events(back, "missed 2") if "system_metric" not in data]
            assert came[1:] == ["missed 0", "missed 1", "missed 2"], came


@book("""printf '%s\\n' '{"topic":"a","data":"one"}' '{"event":"e","data":{"any":"json"}}' | """
      f"""curl -H 'Content-Type: application/x-ndjson' --data-binary @- http://{ADDRESS}/publish""")
def several_events_in_one_request(context, several):
    with start(context) as server, Output(["curl", "-sN", f"{server.url}/events"]) as stream:
        events(stream, "established")
        answer = printed(server, several[0])
        assert answer == {"id": answer["id"], "subscribers": 1, "events": 2}, answer
        assert events(stream, "json")[1:] == ["one", '{"any":"json"}']


@book(f"websocat ws://{ADDRESS}/ws",
      f"websocat --protocol threadcast.v1 ws://{ADDRESS}/ws")
def a_websocket_client(context, plain, commands_of_v1):
    """Debian has no websocat. The text says that any client does."""
    command = [tools.python(), "-B", os.path.join(tools.CLIENTS, "drivers", "websockets_sync.py")]
    client = Driver("websocat", ["ws"], command)
    try:
        with start(context) as server:
            for text, comment in (plain, commands_of_v1):
                program, *flags, url = text.split()
                assert program == "websocat" and flags in ([], ["--protocol", "threadcast.v1"]), text
                url = url.replace(f"ws://{ADDRESS}", server.url)
                socket = client.open("ws", url, protocols=flags[1:])
                socket.welcome()
                socket.send(comment if flags else "hello")
                answer = socket.json()
                assert answer["type"] == ("ack" if flags else "response"), answer
            publish(server.url, "for all topics", topic="any")
            assert socket.json()["data"] == "for all topics"
    finally:
        client.end()


@book(f"curl -N -H 'Authorization: Bearer s3cret' http://{ADDRESS}/events",
      f"curl -X POST -H 'Authorization: Bearer s3cret' http://{ADDRESS}/ticket",
      f"curl -N 'http://{ADDRESS}/events?ticket=9f…'")
def a_token_and_a_ticket(context, bearer, ticket, once):
    assert "works once" in once[1]
    with start(context, "--subscribe-token", "s3cret") as server:
        with Output(typed(server, bearer[0])) as stream:
            events(stream, "established")
        answer = printed(server, ticket[0])
        assert answer == {**json.loads(ticket[1]), "ticket": answer["ticket"]}, answer
        with_ticket = once[0].replace("9f…", answer["ticket"])
        with Output(typed(server, with_ticket)) as stream:
            events(stream, "established")
        assert printed(server, with_ticket)["error"]["code"] == "unauthorized"


@book(f"threadcast --listen {ADDRESS} --max-clients 1000 --max-backlog-bytes 16MiB --history 200"
      " --max-message 64k --tick 10s --log warn")
def settings_of_a_small_machine(context, command):
    program, listen, address, *flags = command[0].split()
    assert (program, listen, address) == ("threadcast", "--listen", ADDRESS)
    with start(context, *flags) as server:
        assert json.loads(request(f"{server.url}/stats")[2])["clients"]["limit"] == 1000
        for length, status in ((64 << 10, 200), ((64 << 10) + 1, 413)):
            assert request(f"{server.url}/publish", "POST", b"x" * length)[0] == status, length


@check("bytes", "the book: systemd accepts the unit file")
def the_unit_file(context, client):
    units = [code for _, text in chapters() for language, code in FENCE.findall(text) if language == "ini"]
    # The binary of the book need not be there.
    text = units[0].replace("/usr/local/bin/threadcast", context.binary)
    with tempfile.TemporaryDirectory() as folder:
        unit = os.path.join(folder, "threadcast.service")
        with open(unit, "w", encoding="utf-8") as file:
            file.write(text)
        analyze = tools.program("systemd-analyze", "systemd")
        done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    # The rest of its command is a server's.
    flags = re.search(r"^ExecStart=\S+ (.*)$", units[0], re.MULTILINE)[1].split()
    assert flags[:2] == ["--listen", ADDRESS] and flags[2:] == ["--token-file", "%d/token"], flags


@book(f"curl -d hello 'http://{ADDRESS}/publish?topic=chat'",
      "curl -d hi '…?topic=käse'")
def commands_in_the_text(context, of_the_tour, of_the_contract):
    with start(context) as server, \
            Output(["curl", "-sN", f"{server.url}/events?topic=chat&topic=k%C3%A4se"]) as stream:
        events(stream, "established")
        assert printed(server, of_the_tour[0])["subscribers"] == 1
        assert printed(server, of_the_contract[0].replace("…", f"http://{ADDRESS}/publish"))["subscribers"] == 1
        assert events(stream, "hi")[1:] == ["hello", "hi"]


@book(f"""curl -d '72.5' -H 'Idempotency-Key: "sensor-7-000481"' 'http://{ADDRESS}/publish?topic=sensors/7'""")
def publishing_twice(context, of_the_book):
    with start(context) as server, Output(["curl", "-sN", f"{server.url}/events"]) as stream:
        events(stream, "established")
        assert printed(server, of_the_book[0])["id"] == printed(server, of_the_book[0])["id"]
        publish(server.url, "end")
        assert events(stream, "end")[1:] == ["72.5", "end"]
