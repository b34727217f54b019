//! Reading a request's head: `Scanner::take` on what has come.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use threadcast::door::head::Scanner;

/// The default of `--max-head`.
const MAX_HEAD: usize = 32 * 1024;

/// What a browser sends with a page's first request.
const BROWSER: &str = "GET /events?topic=news HTTP/1.1\r\n\
    Host: localhost:3000\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-cache\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/event-stream\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Referer: http://localhost:3000/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

/// Reads a head that comes in pieces of so many bytes.
fn read(head: &[u8], piece: usize) {
    let (mut scanner, mut bytes) = (Scanner::default(), Vec::with_capacity(head.len()));
    let mut taken = None;
    for piece in head.chunks(piece) {
        assert!(taken.is_none(), "complete too early");
        bytes.extend_from_slice(black_box(piece));
        taken = scanner.take(&mut bytes, MAX_HEAD).expect("a right head");
    }
    black_box(taken.expect("a complete head"));
}

/// A head of 15 fields, all of it there at once: the usual case.
#[divan::bench(sample_count = 1000, sample_size = 100)]
fn browser(bencher: Bencher) {
    bencher
        .counter(BytesCount::new(BROWSER.len()))
        .bench(|| read(BROWSER.as_bytes(), BROWSER.len()));
}

/// A head of 16 KiB in 40 fields, all of it there at once.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn long(bencher: Bencher) {
    read_long(bencher, 32 * 1024);
}

/// The same in pieces of one byte: the most work that somebody who sends slowly can make.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn long_in_bytes(bencher: Bencher) {
    read_long(bencher, 1);
}

fn read_long(bencher: Bencher, piece: usize) {
    let field = format!("X-Field: {}\r\n", "x".repeat(398));
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", field.repeat(40));
    bencher.counter(BytesCount::new(head.len())).bench(|| read(head.as_bytes(), piece));
}
