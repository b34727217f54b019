//! The program as it is started: flags, variables, what it prints, and what it logs.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use common::sse::Sse;
use common::ws::open;
use common::{FANOUTS, Folder, PROGRAM, Server, wait_for};

/// Runs the program, which must end by itself.
fn run(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(flags).envs(variables.iter().copied()).output().expect("the program starts")
}

/// Checks that the program gives up with this code and one line on stderr, and returns the line.
fn complaint(flags: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let output = run(flags, variables);
    let line = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {line}");
    assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
    assert!(line.starts_with("threadcast: ") && line.ends_with('\n'), "{line:?}");
    assert_eq!(output.stdout, b"", "{flags:?}");
    line
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag], &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        // (That every flag is in it: see src/flags.rs.)
        assert!(text.contains("--listen ") && text.contains("--version"), "{text}");
    }
    for flag in ["--version", "-V"] {
        let output = run(&[flag], &[]);
        assert_eq!(output.status.code(), Some(0));
        let expected = concat!("threadcast ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_stop() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--listen", "127.0.0.1:0", "--log", "debug"]).stdout(Stdio::piped()).stderr(full);
    let mut program = command.spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on http://").map(str::to_owned);
    let mut response = String::new();
    if let Some(address) = &address {
        let mut socket = TcpStream::connect(address).unwrap();
        // A client is two lines in the log.
        write!(socket, "GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        BufReader::new(socket).read_line(&mut response).unwrap();
    }
    program.kill().unwrap();
    program.wait().unwrap();
    assert_eq!(response, "HTTP/1.1 200 OK\r\n", "after {line:?}");
}

#[test]
fn a_bad_flag_is_named_in_one_line() {
    // (More of them in src/flags.rs.)
    let folder = Folder::new("cli-flags");
    let empty = folder.write("empty", "\n");
    let empty = empty.to_str().unwrap();
    for (flags, name) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["--nonsense=1"], "--nonsense"),
        (&["-x"], "-x"),
        (&["word"], "word"),
        (&["--tick"], "--tick"),
        (&["--tick", "-1s"], "--tick"),
        (&["--heartbeat", "5"], "--heartbeat"),
        (&["--ping", ""], "--ping"),
        (&["--drain", "99999999999999999999s"], "--drain"),
        (&["--history", "many"], "--history"),
        (&["--max-clients", "0"], "--max-clients"),
        (&["--max-message", "1.5"], "--max-message"),
        (&["--max-head", "1023"], "--max-head"),
        (&["--max-message", "99999999999999999999999"], "--max-message"),
        (&["--listen", "127.0.0.1"], "--listen"),
        (&["--listen", "127.0.0.1:99999"], "--listen"),
        (&["--www", "/does/not/exist"], "--www"),
        (&["--www", empty], "--www"),
        (&["--token-file", "/does/not/exist"], "--token-file"),
        (&["--token-file", empty], "--token-file"),
        (&["--token", ""], "--token"),
        (&["--subscribe-token-file", empty], "--subscribe-token-file"),
        (&["--subscribe-token", ""], "--subscribe-token"),
        (&["--allow-origin", "example.org"], "--allow-origin"),
        (&["--trust-proxy", "127.0.0.1/33"], "--trust-proxy"),
        (&["--queue", "7", "--log", "two\nlines"], "--log"),
    ] {
        let line = complaint(flags, &[], 2);
        assert!(line.contains(name), "{flags:?}: {line}");
    }
    let line = complaint(&[], &[("THREADCAST_HEADER_TIMEOUT", "soon")], 2);
    assert!(line.contains("THREADCAST_HEADER_TIMEOUT"), "{line}");
}

/// Fewer than the descriptors are only warned of: see tests/capacity.rs.
#[test]
fn more_clients_than_descriptors_are_refused() {
    let script = "ulimit -n 200; exec timeout 20 \"$0\" --listen 127.0.0.1:0 --max-clients 200";
    let output = Command::new("sh").args(["-c", script, PROGRAM]).output();
    let output = output.expect("the shell starts");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.contains("--max-clients: ") && line.contains("200"), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
}

/// Who mistypes a token should not find it in a log collector.
#[test]
fn a_bad_token_is_not_repeated() {
    for flag in ["--token", "--subscribe-token"] {
        let line = complaint(&[flag, "s3cret word"], &[], 2);
        assert!(!line.contains("s3cret"), "{line}");
    }
}

#[test]
fn an_address_that_cannot_be_had_is_named_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = complaint(&["--listen", &address], &[], 1);
    assert!(line.contains(&address), "{line}");
    let server = Server::start(&[]);
    let line = complaint(&["--listen", &server.address.to_string()], &[], 1);
    assert!(line.contains(&server.address.to_string()), "{line}");
    // Reserved for documentation (RFC 5737): no machine has it.
    let line = complaint(&["--listen", "192.0.2.1:0"], &[], 1);
    assert!(line.contains("192.0.2.1"), "{line}");
}

#[test]
fn a_variable_sets_what_no_flag_does() {
    let variables =
        [("THREADCAST_MAX_MESSAGE", "10"), ("THREADCAST_ALLOW_ORIGIN", "http://a, http://b")];
    let publish = |server: &Server, origin: &str, length: usize| {
        server.request("POST", "/publish", origin, &vec![b'x'; length]).status
    };
    let server = Server::start_with_environment(&variables, &[]);
    assert_eq!((publish(&server, "", 10), publish(&server, "", 11)), (200, 413));
    for (origin, status) in [("http://a", 200), ("http://b", 200), ("http://c", 403)] {
        assert_eq!(publish(&server, &format!("Origin: {origin}\r\n"), 1), status, "{origin}");
    }
    let flags = ["--max-message", "20", "--allow-origin=http://c"];
    let server = Server::start_with_environment(&variables, &flags);
    assert_eq!((publish(&server, "", 20), publish(&server, "", 21)), (200, 413));
    for (origin, status) in [("http://a", 403), ("http://c", 200)] {
        assert_eq!(publish(&server, &format!("Origin: {origin}\r\n"), 1), status, "{origin}");
    }
}

/// Scripts wait for the line and read the address from it: it must come at once, whole, and alone.
#[test]
fn the_address_is_the_one_line_on_stdout() {
    let mut addresses = vec!["127.0.0.1:0", "localhost:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push("[::1]:0");
    }
    for listen in addresses {
        let mut child = Command::new(PROGRAM)
            .env("THREADCAST_LISTEN", listen)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address =
            line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix('\n'));
        let answer = address.and_then(|address| std::net::TcpStream::connect(address).ok()).map(
            |mut stream| {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            },
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 ")), "{line:?}");
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn clients_are_logged_when_they_come_and_go_and_events_are_not() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        wait_for("the line of the start", || server.log().contains("room for "));
        let before = server.log().lines().count();
        let mut sse = Sse::open(&server, "/events");
        let mut socket = open(&server, "/ws?topic=default");
        for number in 0..50 {
            server.publish_id("/publish", &format!("data {number}"));
            sse.event().unwrap();
            common::ws::json(&mut socket);
        }
        let addresses =
            [sse.stream().local_addr(), socket.get_ref().local_addr()].map(Result::unwrap);
        server.stats();
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        drop(sse);
        let left = || server.log().matches(" left ").count();
        wait_for("both to leave", || left() == 2);

        let log = server.log();
        for (transport, address) in [("sse", addresses[0]), ("websocket", addresses[1])] {
            let about = format!("{transport} {address} ");
            let lines: Vec<_> = log.lines().filter(|line| line.contains(&about)).collect();
            assert_eq!(lines.len(), 2, "{log}");
            assert!(lines[0].ends_with("connected"), "{log}");
            assert!(lines[1].contains(" 50 events sent: closed by the client"), "{log}");
            assert!(lines.iter().all(|line| line.contains("INFO")), "{log}");
        }
        assert_eq!(log.lines().count(), before + 4, "{log}");
        assert!(!log.contains("data 7"), "{log}");
    }
}

#[test]
fn the_level_is_what_was_asked_for() {
    let server = Server::start(&["--log", "off"]);
    let silent = Server::start(&["--log", "warn"]);
    for server in [server, silent] {
        drop((Sse::open(&server, "/events"), open(&server, "/ws")));
        server.wait_clients(0, 0);
        assert_eq!(server.log(), "");
    }
}

#[test]
fn the_token_is_never_logged() {
    let server = Server::start(&["--token", "s3cret", "--log", "trace"]);
    for headers in [
        "Authorization: Bearer s3cret\r\n",
        "Authorization: Bearer s3crets\r\n",
        "Authorization: Basic s3cret\r\n",
    ] {
        server.request("POST", "/publish?topic=a", headers, b"x");
        server.request("GET", "/events?topic=", headers, b"");
        server.request("GET", "/ws", headers, b"");
    }
    // A connection that breaks is worth a line, too.
    server
        .connect()
        .write_all(b"POST /publish HTTP/1.1\r\nAuthorization: Bearer s3cret\r\n")
        .unwrap();
    drop(Sse::connect(&server, "/events", "Authorization: Bearer s3cret\r\n"));
    wait_for("the client to leave", || server.log().contains(" left "));
    assert!(!server.log().contains("s3cret"), "{}", server.log());
}
