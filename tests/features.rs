//! Cargo features: what one builds in is there with it, and is not found without it.

mod common;

use common::http::{connect_here, get, start_here};

#[test]
fn what_is_not_built_in_is_not_found() {
    let server = start_here();
    let mut http = connect_here(&server);
    for (path, is_built) in [
        ("/", cfg!(feature = "page")),
        ("/app.js", cfg!(feature = "page")),
        ("/metrics", cfg!(feature = "metrics")),
        ("/healthz", true),
        ("/stats", true),
    ] {
        let read = http.ask(get(path, "")).status;
        assert_eq!(read, if is_built { 200 } else { 404 }, "GET {path}");
        let written = http.ask(get(path, "").replacen("GET", "PUT", 1)).status;
        assert_eq!(written, if is_built { 405 } else { 404 }, "PUT {path}");
    }
}
