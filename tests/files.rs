//! Files of a folder (`--www`): large ones, parts of them, what the client has already, folders.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use common::http::{Http, get};
use common::{Answer, Folder, Server, wait_for};

const LARGE: u64 = 60 << 20;

/// A server of this folder, and the folder.
fn serve(name: &str, flags: &[&str]) -> (Server, Folder) {
    let folder = Folder::new(name);
    let www = folder.path.to_str().unwrap().to_owned();
    (Server::start(&[flags, &["--www", &www]].concat()), folder)
}

/// A file of zeros that takes no room on the disk.
fn large_file(folder: &Folder) -> File {
    let file = File::create(folder.path.join("large.bin")).unwrap();
    file.set_len(LARGE).unwrap();
    file
}

/// Asks for the large file, and reads the head and 1,000 bytes.
fn begin_download(mut stream: TcpStream) -> (TcpStream, Answer) {
    stream.write_all(get("/large.bin?ticket=secret", "Connection: close\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") || bytes.len() < 1000 {
        let mut piece = [0; 1000];
        let read = stream.read(&mut piece).expect("the server sends");
        assert!(read > 0, "ended: {}", bytes.escape_ascii());
        bytes.extend_from_slice(&piece[..read]);
    }
    let answer = Answer::parse(&bytes);
    assert_eq!(answer.header("Content-Length"), Some(&*LARGE.to_string()));
    (stream, answer)
}

/// A number from a file of the server's process in /proc.
fn process_number(server: &Server, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_large_file_to_slow_readers_takes_no_memory() {
    let (server, folder) = serve("files-memory", &[]);
    large_file(&folder);
    let before = process_number(&server, "status", "VmRSS:");
    let readers: Vec<_> = (0..6).map(|_| begin_download(server.connect_narrow())).collect();
    let after = process_number(&server, "status", "VmRSS:");
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
    drop(readers);
}

#[test]
fn head_and_a_known_file_read_nothing_of_it() {
    let (server, folder) = serve("files-head", &[]);
    large_file(&folder);
    let head = server.request("HEAD", "/large.bin", "", b"");
    assert_eq!((head.status, head.header("Content-Length")), (200, Some(&*LARGE.to_string())));
    let before = process_number(&server, "io", "rchar:");
    let tag = format!("If-None-Match: {}\r\n", head.header("ETag").unwrap());
    for (method, fields) in [("HEAD", ""), ("HEAD", &*tag), ("GET", &*tag)] {
        let answer = server.request(method, "/large.bin", fields, b"");
        assert!(matches!(answer.status, 200 | 304) && answer.body.is_empty());
    }
    let read = process_number(&server, "io", "rchar:") - before;
    assert!(read < 1 << 20, "{read} bytes were read");
}

#[test]
fn a_download_may_take_as_long_as_it_gets_on() {
    let (server, folder) = serve("files-slow", &[]);
    large_file(&folder);
    let (mut stream, answer) = begin_download(server.connect());
    // Longer than any response without a file may take.
    let (end, mut read) = (Instant::now() + Duration::from_secs(12), answer.body.len());
    let mut piece = [0; 4096];
    while Instant::now() < end {
        read += stream.read(&mut piece).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    read += std::io::copy(&mut stream, &mut std::io::sink()).unwrap() as usize;
    assert_eq!(read as u64, LARGE);
}

#[test]
fn a_file_that_shrinks_ends_the_connection() {
    let (server, folder) = serve("files-shrink", &[]);
    let file = large_file(&folder);
    let (mut stream, answer) = begin_download(server.connect_narrow());
    file.set_len(1000).unwrap();
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert!(answer.body.len() as u64 + rest < LARGE);
    wait_for("a line in the log", || server.log().contains("/large.bin: cut short after "));
    assert!(server.log().contains("shorter"), "{}", server.log());
}

#[test]
fn a_download_that_the_client_leaves_is_logged() {
    let (server, folder) = serve("files-leave", &[]);
    large_file(&folder);
    drop(begin_download(server.connect_narrow()));
    wait_for("a line in the log", || server.log().contains("/large.bin: cut short after "));
    wait_for("the thread's end", || server.client_threads() == 0);
    assert!(!server.log().contains("secret"), "{}", server.log());
}

#[test]
fn shutdown_ends_a_download() {
    let (mut server, folder) = serve("files-shutdown", &["--drain", "200ms"]);
    large_file(&folder);
    let _stalled = begin_download(server.connect_narrow());
    server.signal("TERM");
    assert!(server.wait_exit().success());
}

#[test]
fn shutdown_waits_for_a_download_that_gets_on() {
    let (mut server, folder) = serve("files-drain", &["--drain", "15s"]);
    large_file(&folder);
    let (mut stream, answer) = begin_download(server.connect());
    server.signal("TERM");
    wait_for("the drain to begin", || server.get("/healthz").status == 503);
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert_eq!(answer.body.len() as u64 + rest, LARGE);
    assert!(server.wait_exit().success());
}

/// A download is a request that is being served, not an idle connection that makes room.
#[test]
fn a_slow_download_outlives_a_crowd_of_silent_connections() {
    let folder = Folder::new("files-crowd");
    let server = Server::start_with_descriptors(256, &["--www", folder.path.to_str().unwrap()]);
    large_file(&folder);
    let (mut stream, answer) = begin_download(server.connect_narrow());
    let crowd: Vec<_> =
        (0..300).map(|_| server.connect_from(Ipv4Addr::new(127, 0, 0, 2))).collect();
    server.wait_stats("closed connections", |stats| stats["listener"]["reaped"] != 0);
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert_eq!(answer.body.len() as u64 + rest, LARGE);
    drop(crowd);
}

#[test]
fn a_connection_stays_open_behind_a_file() {
    let (server, folder) = serve("files-kept", &[]);
    let text = "0123456789".repeat(30_000);
    folder.write("a.txt", &text);
    folder.write("empty.txt", "");
    let mut http = Http::connect(&server);
    for _ in 0..3 {
        assert_eq!(http.ask(get("/a.txt", "")).text(), text);
        assert_eq!(http.ask(get("/a.txt", "Range: bytes=2-4\r\n")).text(), "234");
        assert_eq!(http.ask(get("/empty.txt", "")).text(), "");
    }
}

#[test]
fn one_part_of_a_file_can_be_had() {
    let (server, folder) = serve("files-range", &[]);
    folder.write("digits.txt", "0123456789");
    folder.write("empty.txt", "");
    let ask = |method: &str, range: &str| {
        server.request(method, "/digits.txt", &format!("Range: {range}\r\n"), b"")
    };
    for (range, text, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("BYTES=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=0-", "0123456789", "bytes 0-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-30", "0123456789", "bytes 0-9/10"),
        ("bytes=8-99999999999999999999999", "89", "bytes 8-9/10"),
    ] {
        let answer = ask("GET", range);
        assert_eq!((answer.status, answer.text()), (206, text), "{range}");
        assert_eq!(answer.header("Content-Range"), Some(content_range));
        assert_eq!(answer.header("Content-Length"), Some(&*text.len().to_string()));
        assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        // A range is a part of what GET gives; for other methods it says nothing.
        assert_eq!(ask("HEAD", range).status, 200);
    }
    for range in ["bytes=10-", "bytes=11-12", "bytes=-0"] {
        let answer = ask("GET", range);
        assert_eq!((answer.status, &*answer.error_code()), (416, "bad_range"), "{range}");
        assert_eq!(answer.header("Content-Range"), Some("bytes */10"));
    }
    // Several parts, other units and what is no range: the whole file.
    for range in
        ["bytes=0-1,3-4", "bytes=4-2", "bytes=", "bytes=x-", "lines=1-2", "0-4", "bytes=-1-2"]
    {
        let answer = ask("GET", range);
        assert_eq!((answer.status, answer.text()), (200, "0123456789"), "{range}");
        assert_eq!(answer.header("Content-Range"), None);
    }
    let twice = "Range: bytes=0-1\r\nRange: bytes=3-4\r\n";
    assert_eq!(server.request("GET", "/digits.txt", twice, b"").status, 200);
    let empty = |range| server.request("GET", "/empty.txt", range, b"");
    assert_eq!(empty("Range: bytes=0-\r\n").header("Content-Range"), Some("bytes */0"));
    assert_eq!(empty("Range: bytes=-5\r\n").status, 200);
}

#[test]
fn a_part_is_of_the_file_that_the_client_knows() {
    let (server, folder) = serve("files-if-range", &[]);
    let path = folder.write("digits.txt", "0123456789");
    set_modified(&path, 1_700_000_000);
    let whole = server.get("/digits.txt");
    let (tag, date) = (whole.header("ETag").unwrap(), whole.header("Last-Modified").unwrap());
    assert_eq!(date, "Tue, 14 Nov 2023 22:13:20 GMT");
    let status = |validator: &str| {
        let fields = format!("Range: bytes=2-4\r\nIf-Range: {validator}\r\n");
        server.request("GET", "/digits.txt", &fields, b"").status
    };
    assert_eq!((status(tag), status(date)), (206, 206));
    let weak = format!("W/{tag}");
    for other in ["\"x\"", &weak, "Tue, 14 Nov 2023 22:13:21 GMT", "yesterday", "*"] {
        assert_eq!(status(other), 200, "{other}");
    }
    // Of the same length, and a moment later.
    folder.write("digits.txt", "9876543210");
    assert_eq!((status(tag), status(date)), (200, 200));
}

#[test]
fn a_file_that_has_not_changed_is_not_sent_again() {
    let (server, folder) = serve("files-modified", &[]);
    let path = folder.write("a.txt", "text");
    set_modified(&path, 1_700_000_000);
    let status = |fields: &str| server.request("GET", "/a.txt", fields, b"").status;
    for (date, expected) in [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 304),
        ("Tue, 14 Nov 2023 22:13:21 GMT", 304),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", 304),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
        ("no date", 200),
    ] {
        let field = format!("If-Modified-Since: {date}\r\n");
        assert_eq!(status(&field), expected, "{date}");
        // A tag tells more, and where there is one the date does not count.
        assert_eq!(status(&format!("{field}If-None-Match: \"x\"\r\n")), 200, "{date}");
    }
    let known = server.request(
        "GET",
        "/a.txt",
        "If-Modified-Since: Wed, 15 Nov 2023 00:00:00 GMT\r\n",
        b"",
    );
    assert_eq!(known.header("Last-Modified"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    let tag = known.header("ETag").unwrap().to_owned();
    assert_eq!(status(&format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n")), 304);
    // Times that no date can tell, or that have not come yet.
    for time in [-86_400, 4_000_000_000] {
        set_modified(&path, time);
        let answer = server.get("/a.txt");
        assert_eq!((answer.status, answer.header("Last-Modified")), (200, None), "{time}");
    }
}

fn set_modified(path: &std::path::Path, seconds: i64) {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH - distance,
        false => SystemTime::UNIX_EPOCH + distance,
    };
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_folder_without_its_slash_is_redirected() {
    let (server, folder) = serve("files-folder", &[]);
    for name in ["sub/index.html", "sub/a b:c/index.html", "evil.example/index.html"] {
        folder.write(name, "below");
    }
    folder.write("bare/file.txt", "text");
    for (target, location) in [
        ("/sub", "./sub/"),
        ("/sub?a=1&b=/x?", "./sub/?a=1&b=/x?"),
        ("/sub/a%20b:c", "./a%20b:c/"),
        ("http://other.example/sub", "./sub/"),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.request(method, target, "", b"");
            assert_eq!(
                (answer.status, answer.header("Location")),
                (301, Some(location)),
                "{target}"
            );
        }
    }
    assert_eq!(server.get("/sub/?a=1").text(), "below");
    for target in
        ["//evil.example", "//evil.example/", "/%2Fevil.example", "/\\evil.example", "/bare"]
    {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.header("Location")), (404, None), "{target}");
    }
}
