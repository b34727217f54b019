//! A stock ticker: a thread of the program publishes a price ten times a second, and another part of the
//! program reads the same events as the clients do.
//!
//! ```sh
//! cargo run --example ticker
//! curl -N 'http://127.0.0.1:3000/events?topic=price'
//! ```
use std::time::{Duration, Instant};
use std::{env, process, thread};

use threadcast::{PublishError, Server};

const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
const PRINT_INTERVAL: Duration = Duration::from_secs(1);

fn main() {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let server = Server::builder().listen(&address).start().unwrap_or_else(|error| {
        eprintln!("ticker: {error}");
        process::exit(1)
    });
    println!("listening on http://{}", server.address());
    thread::scope(|scope| {
        // It ends with the server, when nothing can be published any more.
        scope.spawn(|| publish_prices(&server));
        print_prices(&server);
    });
}

fn publish_prices(server: &Server) -> Result<(), PublishError> {
    let (mut cents, mut random) = (10_000_u64, 1_u64);
    loop {
        // Knuth's generator; its high bits are the random ones. The walk: a step of up to five cents.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        cents = (cents + (random >> 32) % 11).saturating_sub(5).max(1);
        server.publish("price", format!("{}.{:02}", cents / 100, cents % 100))?;
        thread::sleep(PUBLISH_INTERVAL);
    }
}

/// Prints a price each second.
fn print_prices(server: &Server) {
    let mut next = Instant::now();
    // All events come here, in their order; a reader that is too slow gets one of the name `gap`.
    for event in server.subscribe(["price"]) {
        if Instant::now() >= next && event.name().is_none() {
            println!("{}", event.data());
            next += PRINT_INTERVAL;
        }
    }
}
