//! An event in its two encodings. Each is made once per event, however many receive it.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use threadcast::event::encoding::Encoding;
use threadcast::event::{Draft, Event, EventId};
use threadcast::http::coding::Coding;

const SIZES: [&str; 3] = ["100 B", "2048 B", "2048 B in 128 lines"];

/// Printable text with quotation marks in it, as JSON has that is published as data.
fn data(size: &str) -> String {
    let pattern = r#"{"price":1234.5,"n":7},"#.chars().cycle();
    match size {
        "100 B" => pattern.take(100).collect(),
        "2048 B" => pattern.take(2048).collect(),
        _ => {
            let line: String = pattern.take(15).chain(['\n']).collect();
            line.repeat(128)
        }
    }
}

fn event(data: &str) -> Event {
    let draft = Draft::new("prices", Some("price"), data).expect("names that are allowed");
    Event::new(EventId { millis: 1_700_000_000_000, sequence: 7 }, draft)
}

fn measure(bencher: Bencher, size: &str, encoding: Encoding) {
    let data = data(size);
    bencher
        .counter(BytesCount::of_str(&data))
        .with_inputs(|| event(&data))
        .bench_local_refs(|event| black_box(event.encoded(encoding)).len());
}

/// As one message of an event stream.
#[divan::bench(args = SIZES, sample_size = 100, sample_count = 200)]
fn sse(bencher: Bencher, size: &str) {
    measure(bencher, size, Encoding::Sse(Coding::Chunked));
}

/// As one WebSocket frame with JSON in it.
#[divan::bench(args = SIZES, sample_size = 100, sample_count = 200)]
fn websocket(bencher: Bencher, size: &str) {
    measure(bencher, size, Encoding::WebSocket);
}
