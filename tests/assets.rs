//! The page: the one inside the binary, and any folder.

mod common;

use std::os::unix::fs::symlink;

use common::{Folder, Server};

/// What the page may weigh.
const MAX_PAGE_BYTES: usize = 150 * 1024;

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
    let mut tags = std::collections::HashSet::new();
    let mut bytes = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/www")).unwrap() {
        let (name, body) = file.map(|file| (file.file_name(), std::fs::read(file.path()))).unwrap();
        let (name, body) = (name.into_string().unwrap(), body.unwrap());
        // Of a script's types both are right (RFC 9239 section 6); which one, a crate's table decides.
        let types = match name.rsplit_once('.').unwrap().1 {
            "html" => &["text/html; charset=utf-8"][..],
            "js" => &["text/javascript; charset=utf-8", "application/javascript; charset=utf-8"],
            "css" => &["text/css; charset=utf-8"],
            "svg" => &["image/svg+xml"],
            "json" => &["application/json"],
            other => panic!("{name}: which type does {other} have?"),
        };
        let answer = server.get(&format!("/{name}"));
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.body, body, "{name}");
        assert!(types.contains(&answer.header("Content-Type").unwrap()), "{}", answer.head);
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"));
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert!(policy.contains("default-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(tags.insert(answer.header("ETag").unwrap().to_owned()), "{name}: another's tag");
        bytes += body.len();
    }
    assert!(bytes <= MAX_PAGE_BYTES, "the page has {bytes} bytes");
    let index = include_bytes!("../www/index.html").as_slice();
    assert_eq!(server.get("/").body, index);
    assert_eq!(server.get("/?query=is-ignored").body, index);
}

/// What the recorded table says, the README says, too; and each place in the source that a chapter names is there.
#[test]
fn what_the_page_tells_of_readme_and_source_is_true() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../www/recorded.json")).unwrap();
    let table = &recorded["readme"];
    assert!(readme.contains(table["date"].as_str().unwrap()), "the date of the table");
    let rows = table["rows"].as_array().unwrap();
    assert!(!rows.is_empty());
    // The page has words of its own for each row; the README's begin like this.
    let names = [
        ("fanout-sse", "SSE fan-out to 1,000"),
        ("fanout-ws", "WebSocket fan-out to 1,000"),
        ("saturate", "SSE fan-out as fast"),
        ("echo-64", "echo, 64 "),
        ("echo-2000", "echo, 2,000 "),
        ("idle-sse", "idle SSE client"),
    ];
    for row in rows {
        let cells: Vec<&str> =
            row.as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let (_, name) = names.iter().find(|(key, _)| *key == cells[0]).unwrap();
        let values = format!(" | {} |", cells[1..].join(" | "));
        let is_there = readme
            .lines()
            .any(|line| line.starts_with(&format!("| {name}")) && line.ends_with(&values));
        assert!(is_there, "not in README.md: {cells:?}");
    }
    let chapters = include_str!("../www/chapters.js");
    let mut count = 0;
    for line in chapters.lines() {
        // A link is `['file', 'item']`; its item is a declaration in that file.
        for link in line.split("['").skip(1).filter(|link| link.contains('/')) {
            let parts: Vec<&str> = link.split('\'').collect();
            let (file, item) = (parts[0], parts[2]);
            assert!(root.join(file).exists(), "no {file}");
            if !item.is_empty() {
                let text = std::fs::read_to_string(root.join(file)).unwrap();
                let kinds = ["fn", "struct", "enum", "const", "class", "function"];
                let is_there = kinds.iter().any(|kind| text.contains(&format!("{kind} {item}")));
                assert!(is_there, "{file} declares no {item}");
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
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
