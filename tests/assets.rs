//! The page: the one inside the binary, and any folder.

mod common;

use std::os::unix::fs::symlink;

use common::{Folder, Server};

/// What cannot be told from a path inside the folder by looking at it undecoded.
const WAYS_OUT: &[&str] = &[
    "/../secret.txt",
    "/sub/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/%2E%2E%2Fsecret.txt",
    "/..%2fsecret.txt",
    "/sub/%2e%2e/%2e%2e/secret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/./../secret.txt",
    "/secret.txt%00.html",
];

#[test]
fn the_page_and_its_files_are_inside_the_binary() {
    let server = Server::start(&[]);
    let index = include_bytes!("../www/index.html").as_slice();
    let script = include_bytes!("../www/app.js").as_slice();
    let style = include_bytes!("../www/style.css").as_slice();
    let icon = include_bytes!("../www/favicon.svg").as_slice();
    let mut tags = std::collections::HashSet::new();
    for (path, types, body) in [
        ("/index.html", &["text/html; charset=utf-8"][..], index),
        // Both are right (RFC 9239 section 6); which one, a crate's table decides.
        (
            "/app.js",
            &["text/javascript; charset=utf-8", "application/javascript; charset=utf-8"],
            script,
        ),
        ("/style.css", &["text/css; charset=utf-8"], style),
        ("/favicon.svg", &["image/svg+xml"], icon),
        ("/?query=is-ignored", &["text/html; charset=utf-8"], index),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.body, body, "{path}");
        assert!(types.contains(&answer.header("Content-Type").unwrap()), "{}", answer.head);
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"));
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert!(policy.contains("default-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        tags.insert(answer.header("ETag").unwrap().to_owned());
    }
    assert_eq!(tags.len(), 4, "each file has a tag of its own: {tags:?}");
    assert_eq!(server.get("/").body, index);
}

#[test]
fn what_the_browser_has_is_not_sent_again() {
    let server = Server::start(&[]);
    let tag = server.get("/app.js").header("ETag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
        for method in ["GET", "HEAD"] {
            let field = format!("If-None-Match: {known}\r\n");
            let answer = server.request(method, "/app.js", &field, b"");
            assert_eq!(answer.status, 304, "{method} {known}");
            assert_eq!(answer.header("ETag"), Some(&*tag));
            assert_eq!(answer.text(), "");
        }
    }
    for other in ["\"x\"".to_owned(), tag.replace('"', ""), tag[..tag.len() - 2].to_owned() + "\""]
    {
        let answer = server.request("GET", "/app.js", &format!("If-None-Match: {other}\r\n"), b"");
        assert_eq!((answer.status, answer.body.is_empty()), (200, false), "{other}");
    }
}

#[test]
fn another_folder_can_be_served() {
    let folder = Folder::new("http-www");
    folder.write("www/index.html", "my page");
    folder.write("www/sub/index.html", "below");
    folder.write("www/a b+c.txt", "odd name");
    let page = folder.write("www/data.json", "{}");
    let server = Server::start(&["--www", folder.path.join("www").to_str().unwrap()]);
    assert_eq!(server.get("/").text(), "my page");
    assert_eq!(server.get("/sub/").text(), "below");
    assert_eq!(server.get("/a%20b+c.txt").text(), "odd name");
    assert_eq!(server.get("/app.js").status, 404, "not the built-in one");

    let before = server.get("/data.json");
    assert_eq!(before.header("Content-Type"), Some("application/json"));
    std::fs::write(page, "[1]").unwrap();
    let field = format!("If-None-Match: {}\r\n", before.header("ETag").unwrap());
    let after = server.request("GET", "/data.json", &field, b"");
    assert_eq!((after.status, after.text()), (200, "[1]"));
}

/// A plain page, as an article shows it, has inline scripts and styles. Our policy is for our page.
#[test]
fn a_folder_of_the_users_has_the_users_policy() {
    let folder = Folder::new("policy");
    folder.write("index.html", "<button onclick='new EventSource(\"/events\")'>go</button>");
    let server = Server::start(&["--www", folder.path.to_str().unwrap()]);
    let answer = server.get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Security-Policy"), None);
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    assert!(Server::start(&[]).get("/").header("Content-Security-Policy").is_some());
}

/// The query of a page is the page's: its script reads it.
#[test]
fn a_page_may_have_any_query() {
    let folder = Folder::new("query");
    folder.write("index.html", "my page");
    folder.write("sub/index.html", "below");
    let server = Server::start(&["--www", folder.path.to_str().unwrap()]);
    for query in ["topics=a", "channel=7", "topic=caf%E9", "topic=", "event=a%0Ab"] {
        assert_eq!(server.get(&format!("/?{query}")).text(), "my page", "{query}");
        let location = format!("./sub/?{query}");
        assert_eq!(server.get(&format!("/sub?{query}")).header("Location"), Some(&*location));
        // A WebSocket's is ours.
        let upgrade = common::ws::upgrade_lines();
        assert_eq!(server.request("GET", &format!("/?{query}"), &upgrade, b"").status, 400);
    }
}

#[test]
fn no_path_leads_out_of_the_folder() {
    let folder = Folder::new("http-out");
    folder.write("secret.txt", "secret");
    folder.write("outside/file.txt", "secret");
    folder.write("www/sub/inside.txt", "inside");
    let www = folder.path.join("www");
    symlink(folder.path.join("secret.txt"), www.join("link.txt")).unwrap();
    symlink("../outside", www.join("linked")).unwrap();
    symlink("sub/inside.txt", www.join("within.txt")).unwrap();
    symlink("loop", www.join("loop")).unwrap();
    // Reading a pipe would wait for a writer for ever.
    let pipe = std::process::Command::new("mkfifo").arg(www.join("pipe")).status();
    assert!(pipe.unwrap().success());

    let own = Server::start(&["--www", www.to_str().unwrap()]);
    assert_eq!(own.get("/sub/inside.txt").text(), "inside");
    assert_eq!(own.get("/within.txt").text(), "inside");
    let more = ["/link.txt", "/linked/file.txt", "/linked/", "/loop", "/pipe", "/", "/sub/"];
    let built_in = Server::start(&[]);
    for (server, paths) in [(&own, WAYS_OUT), (&own, &more), (&built_in, WAYS_OUT)] {
        for path in paths {
            let answer = server.get(path);
            // Where the path itself tells, it is refused before anybody looks for a file.
            let code = answer.error_code();
            let refused =
                matches!((answer.status, &*code), (404, "not_found") | (400, "bad_target"));
            assert!(refused, "{path}: {} {code}", answer.status);
            assert!(!answer.text().contains("secret"), "{path}: {}", answer.text());
        }
    }
}
