//! What pages of other origins may ask and read (CORS, WHATWG Fetch section 3.3).

mod common;

use common::http::{Http, get};
use common::ws::upgrade_lines;
use common::{Answer, Server};

const APP: &str = "Origin: https://app.example\r\n";
const OTHER: &str = "Origin: https://other.example\r\n";

/// The field lines that polyfills and fetch clients ask for, with those of tracing libraries.
const ASKED: &str = "authorization,cache-control,content-type,last-event-id,traceparent,\
                     x-requested-with";

const ENDPOINTS: [(&str, &str); 4] =
    [("/events", "GET"), ("/stats", "GET"), ("/publish", "POST"), ("/ticket", "POST")];

fn preflight(server: &Server, path: &str, method: &str, origin: &str, asked: &str) -> Answer {
    let fields = format!(
        "{origin}Access-Control-Request-Method: {method}\r\n\
         Access-Control-Request-Headers: {asked}\r\n"
    );
    server.request("OPTIONS", path, &fields, b"")
}

/// The head of an event stream, or of a plain response.
fn get_events(server: &Server, target: &str, headers: &str) -> Answer {
    let mut http = Http::connect(server);
    http.send(get(target, headers));
    http.head()
}

/// Who may read the response, and whether with credentials.
fn readers(answer: &Answer) -> (Option<&str>, bool) {
    let credentials = answer.header("Access-Control-Allow-Credentials");
    assert!(matches!(credentials, None | Some("true")));
    (answer.header("Access-Control-Allow-Origin"), credentials.is_some())
}

const NOBODY: (Option<&str>, bool) = (None, false);
const ANYBODY: (Option<&str>, bool) = (Some("*"), false);
const THE_APP: (Option<&str>, bool) = (Some("https://app.example"), true);

#[test]
fn an_allowed_origin_may_send_any_field() {
    for flags in [&[][..], &["--token", "t"], &["--subscribe-token", "t"]] {
        let server = Server::start(&[flags, &["--allow-origin", "https://app.example"]].concat());
        for (path, method) in ENDPOINTS {
            let answer = preflight(&server, path, method, APP, ASKED);
            assert_eq!((answer.status, answer.text()), (204, ""), "{path}");
            assert_eq!(readers(&answer), THE_APP, "{path}");
            assert_eq!(answer.header("Access-Control-Allow-Headers"), Some(ASKED));
            let methods = if method == "GET" { "GET, HEAD, OPTIONS" } else { "POST, OPTIONS" };
            assert_eq!(answer.header("Access-Control-Allow-Methods"), Some(methods));
            assert_eq!(answer.header("Access-Control-Max-Age"), Some("600"));
            assert_eq!(answer.header("Vary"), Some("Origin"));
        }
    }
}

/// What is wrong with the request, or the server, is told in answer to the request itself: a page
/// sees nothing of a preflight that fails.
#[test]
fn a_preflight_succeeds_whatever_becomes_of_the_request() {
    let mut server = Server::start(&["--drain", "10s", "--allow-origin", "https://app.example"]);
    let deaf = common::ws::Raw::connect(&server, "/ws");
    let misspelt = preflight(&server, "/events?topics=a", "GET", APP, ASKED);
    assert_eq!((misspelt.status, readers(&misspelt)), (204, THE_APP));
    server.signal("TERM");
    common::wait_for("the drain to begin", || server.get("/healthz").status == 503);
    let draining = preflight(&server, "/publish", "POST", APP, ASKED);
    assert_eq!((draining.status, readers(&draining)), (204, THE_APP));
    let refused = server.request("POST", "/publish", APP, b"x");
    assert_eq!((refused.status, readers(&refused)), (503, THE_APP));
    // A proxy that checks by OPTIONS sends nobody here any more.
    assert_eq!(server.respond("OPTIONS / HTTP/1.0\r\n\r\n").status, 503);
    drop(deaf);
    assert!(server.wait_exit().success());
}

#[test]
fn only_names_of_fields_are_repeated() {
    let server = Server::start(&["--allow-origin", "https://app.example"]);
    let long = format!("x-{}", "y".repeat(2000));
    for asked in ["", "a b", "a;b", "a,,b:", "\"a\"", "a, ümlaut", &long] {
        let answer = preflight(&server, "/events", "GET", APP, asked);
        assert_eq!(answer.status, 204, "{asked}");
        assert_eq!(answer.header("Access-Control-Allow-Headers"), None, "{asked}");
    }
    let answer = preflight(&server, "/events", "GET", APP, "X-A, x-b ,\tx-c");
    assert_eq!(answer.header("Access-Control-Allow-Headers"), Some("X-A, x-b ,\tx-c"));
}

#[test]
fn what_is_public_any_page_may_read() {
    for (flags, is_varied) in
        [(&[][..], false), (&["--allow-origin", "https://app.example"][..], true)]
    {
        let server = Server::start(flags);
        let vary = is_varied.then_some("Origin");
        for origin in [OTHER, "Origin: null\r\n", ""] {
            let mut answers = vec![
                get_events(&server, "/events", origin),
                server.request("HEAD", "/events", origin, b""),
                server.request("GET", "/events?topics=x", origin, b""),
                server.request("GET", "/stats", origin, b""),
            ];
            answers.push(preflight(&server, "/events", "GET", origin, ASKED));
            assert_eq!(answers[4].header("Access-Control-Allow-Headers"), Some(ASKED));
            for answer in answers {
                assert_eq!(readers(&answer), ANYBODY, "{origin}{}", answer.head);
                assert_eq!(answer.header("Vary"), vary);
            }
            // Publishing is another matter.
            if !origin.is_empty() {
                for answer in [
                    preflight(&server, "/publish", "POST", origin, ASKED),
                    server.request("POST", "/publish", origin, b"x"),
                ] {
                    assert_eq!((answer.status, &*answer.error_code()), (403, "forbidden_origin"));
                    assert_eq!(readers(&answer), NOBODY);
                }
            }
        }
        // Nothing that was refused is published.
        assert_eq!(server.stats()["fanOut"]["events"], 0);
        // Files are the folder's own matter.
        assert_eq!(readers(&server.request("GET", "/", OTHER, b"")), NOBODY);
    }
}

#[test]
fn what_is_protected_only_named_origins_may_read() {
    let flags = ["--subscribe-token", "t", "--allow-origin", "https://app.example"];
    let server = Server::start(&flags);
    let bearer = "Authorization: Bearer t\r\n";
    for (origin, expected) in [(APP, THE_APP), (OTHER, NOBODY), ("", NOBODY)] {
        for answer in [
            get_events(&server, "/events", &format!("{origin}{bearer}")),
            server.request("GET", "/stats", &format!("{origin}{bearer}"), b""),
            server.request("GET", "/events", origin, b""),
            server.request("GET", "/stats", origin, b""),
            preflight(&server, "/events", "GET", origin, ASKED),
        ] {
            assert!(matches!(answer.status, 200 | 204 | 401), "{}", answer.head);
            assert_eq!(readers(&answer), expected, "{origin}{}", answer.head);
            assert_eq!(answer.header("Vary"), Some("Origin"));
        }
    }
    // Pages of a named origin get tickets and publish; others do not, whatever cookie comes with them.
    let ticket = server.request("POST", "/ticket", &format!("{APP}{bearer}"), b"");
    let published = server.request("POST", "/publish", APP, b"x");
    for answer in [ticket, published] {
        assert_eq!((answer.status, readers(&answer)), (200, THE_APP));
        assert_eq!(answer.header("Vary"), Some("Origin"));
    }
    for origin in [OTHER, "Origin: null\r\n"] {
        let cookie = format!("{origin}Cookie: threadcast_token=t\r\n");
        for answer in [
            server.request("POST", "/ticket", &cookie, b""),
            preflight(&server, "/ticket", "POST", &cookie, ASKED),
            server.request("GET", "/ws", &format!("{cookie}{}", upgrade_lines()), b""),
        ] {
            assert_eq!((answer.status, &*answer.error_code()), (403, "forbidden_origin"));
            assert_eq!(readers(&answer), NOBODY, "{origin}");
        }
    }
}

#[test]
fn a_page_may_read_what_is_wrong() {
    let allow = ["--allow-origin", "https://app.example"];
    let server = Server::start(&[&allow[..], &["--token", "t", "--max-clients", "1"]].concat());
    let protected = Server::start(&[&allow[..], &["--subscribe-token", "t"]].concat());
    let everywhere = Server::start(&[&allow[..], &["--listen", "0.0.0.0:0"]].concat());
    let bearer = "Authorization: Bearer t\r\n";
    let long = vec![b'x'; (1 << 20) + 1];
    let gzip = "Authorization: Bearer t\r\nContent-Encoding: gzip\r\n";
    for (server, method, target, headers, body, status) in [
        (&server, "GET", "/events?topics=x", "", &b""[..], 400),
        (&server, "GET", "/events", "", b"a body", 400),
        (&server, "POST", "/publish?topic=*", bearer, b"x", 400),
        (&server, "POST", "/publish", "", b"x", 401),
        (&protected, "GET", "/events", "", b"", 401),
        (&protected, "GET", "/stats", "", b"", 401),
        (&protected, "POST", "/ticket", "", b"", 401),
        (&everywhere, "POST", "/publish", "", b"x", 403),
        (&server, "POST", "/ticket", "", b"", 404),
        (&server, "PUT", "/events", "", b"", 405),
        (&server, "GET", "/publish", "", b"", 405),
        (&server, "POST", "/publish", bearer, &long, 413),
        (&server, "POST", "/publish", gzip, b"x", 415),
    ] {
        let answer = server.request(method, target, &format!("{APP}{headers}"), body);
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(readers(&answer), THE_APP, "{method} {target}");
        assert_eq!(answer.header("Vary"), Some("Origin"));
        // When to come back, for one.
        assert_eq!(answer.header("Access-Control-Expose-Headers"), Some("Retry-After"));
    }
    let first = get_events(&server, "/events", APP);
    server.wait_clients(0, 0);
    assert_eq!(readers(&first), THE_APP);
    let _only = common::sse::Sse::open(&server, "/events");
    server.wait_clients(1, 0);
    assert_eq!(readers(&get_events(&server, "/events", APP)), THE_APP, "no room");
}

#[test]
fn all_origins_together_are_none_to_send_cookies() {
    let server = Server::start(&["--allow-origin", "*", "--subscribe-token", "t"]);
    for (path, method) in ENDPOINTS {
        for origin in [APP, "Origin: null\r\n"] {
            assert_eq!(readers(&preflight(&server, path, method, origin, ASKED)), ANYBODY);
            let answer = server.request(method, path, origin, b"");
            assert_eq!(readers(&answer), ANYBODY, "{path}");
            assert_eq!(answer.header("Vary"), None);
        }
    }
    // Any page can make itself one of origin null, in a sandboxed frame.
    let server = Server::start(&["--allow-origin", "null", "--subscribe-token", "t"]);
    let answer = server.request("POST", "/ticket", "Origin: null\r\n", b"");
    assert_eq!((answer.status, readers(&answer)), (401, (Some("null"), false)));
}

#[test]
fn the_own_page_needs_no_field_and_a_websocket_has_none() {
    let server = Server::start(&["--allow-origin", "https://app.example"]);
    let own = format!("Origin: http://{}\r\n", server.address);
    let answer = server.request("POST", "/publish", &own, b"x");
    assert_eq!((answer.status, readers(&answer)), (200, NOBODY));
    let handshake = server.request("GET", "/ws", &format!("{OTHER}{}", upgrade_lines()), b"");
    assert_eq!((handshake.status, readers(&handshake)), (403, NOBODY));
}

/// A page in somebody's browser reaches a server that only this machine reaches.
#[test]
fn pages_of_strangers_do_not_see_who_is_connected() {
    let server = Server::start(&["--allow-origin", "https://app.example"]);
    let _client = common::sse::Sse::open(&server, "/events");
    server.wait_clients(1, 0);
    for (origin, count) in [("", 1), (APP, 1), (OTHER, 0), ("Origin: null\r\n", 0)] {
        let stats = server.request("GET", "/stats", origin, b"").json();
        assert_eq!(stats["clients"]["sse"], 1);
        assert_eq!(stats["clients"]["listed"].as_array().unwrap().len(), count, "{origin}");
    }
}
