//! The page: inside the binary, or from the folder given with `--www`.
//!
//! The client's thread opens a file of the folder here, and reads nothing but its length and its time
//! of modification. They decide whether the client has the file already (RFC 9110 section 13), and
//! which part of it is asked for (section 14). [`crate::http::download`] sends it. Nothing here waits
//! but for the disk.

use std::collections::hash_map::DefaultHasher;
use std::fs::{File, Metadata};
use std::hash::Hasher;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_range_header::{RangeUnsatisfiableError, parse_range_header};

use crate::http::Response;
use crate::http::download::FilePart;
use crate::http::head::{Head, percent_decode};

/// The files inside the binary: their paths and contents.
const EMBEDDED: &[(&str, &[u8])] = &[
    ("index.html", include_bytes!("../www/index.html")),
    ("style.css", include_bytes!("../www/style.css")),
    ("favicon.svg", include_bytes!("../www/favicon.svg")),
    ("app.js", include_bytes!("../www/app.js")),
    ("board.js", include_bytes!("../www/board.js")),
    ("bytes.js", include_bytes!("../www/bytes.js")),
    ("chapters.js", include_bytes!("../www/chapters.js")),
    ("compare.js", include_bytes!("../www/compare.js")),
    ("dom.js", include_bytes!("../www/dom.js")),
    ("experiments.js", include_bytes!("../www/experiments.js")),
    ("lab.js", include_bytes!("../www/lab.js")),
    ("learn.js", include_bytes!("../www/learn.js")),
    ("live.js", include_bytes!("../www/live.js")),
    ("shared.js", include_bytes!("../www/shared.js")),
    ("strings.de.js", include_bytes!("../www/strings.de.js")),
    ("strings.en.js", include_bytes!("../www/strings.en.js")),
    ("texts.js", include_bytes!("../www/texts.js")),
    ("threads.js", include_bytes!("../www/threads.js")),
    ("recorded.json", include_bytes!("../www/recorded.json")),
];

/// The built-in page loads nothing from elsewhere, runs nothing inline, and is not to be framed.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The source of files.
#[derive(Debug)]
pub struct Assets {
    /// The benchmark's, which is served as `/report`.
    report: Option<PathBuf>,
    /// Canonical. `None`: [`EMBEDDED`].
    folder: Option<PathBuf>,
}

/// What a path leads to.
enum Found {
    /// A file inside the binary: its name and content.
    Embedded(&'static str, &'static [u8]),
    /// A file of the folder.
    File(PathBuf),
    /// A folder with an `index.html`, without the slash at the end.
    Folder,
}

impl Assets {
    /// `folder` and `report` as in [`Config::set_www`](crate::Config::set_www) and
    /// [`Config::set_report`](crate::Config::set_report), canonical.
    pub fn new(folder: Option<PathBuf>, report: Option<PathBuf>) -> Assets {
        Assets { report, folder }
    }

    /// Whether there is a file or a folder at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The response to a GET or HEAD request for `path`: the file, the part of it that is asked for, 304 where
    /// the client has it already, the way to a folder's page, or 404.
    pub fn respond(&self, path: &str, head: &Head) -> Response {
        let response = match self.find(path) {
            None => return Response::not_found(),
            Some(Found::Embedded(name, content)) => return embedded(name, content, head),
            Some(Found::Folder) => redirect(head.path(), head.query()),
            // The metadata of the open file: another one may have taken its name meanwhile.
            Some(Found::File(name)) => match File::open(&name).and_then(|file| {
                let metadata = file.metadata()?;
                Ok((file, metadata))
            }) {
                Ok((file, metadata)) => whole_or_part(&name, file, &metadata, head),
                // One without permission, most likely: for the operator to know, not for the client.
                Err(error) => {
                    log::warn!("{}: {error}", name.display());
                    return Response::not_found();
                }
            },
        };
        response.with("Cache-Control", ASK_EACH_TIME)
    }

    /// What there is at `path`, which is as the client sent it, without the query.
    fn find(&self, path: &str) -> Option<Found> {
        // A prefix, without the slash that the relative links of its page need.
        if path.is_empty() {
            return Some(Found::Folder);
        }
        if path == "/report"
            && let Some(report) = &self.report
        {
            return Some(Found::File(report.clone()));
        }
        let name = relative(path)?;
        let Some(folder) = &self.folder else {
            let name = if name.as_os_str().is_empty() { Path::new("index.html") } else { &name };
            let found = EMBEDDED.iter().find(|(known, _)| Path::new(known) == name);
            return found.map(|(name, content)| Found::Embedded(name, content));
        };
        let mut file = folder.join(name);
        let is_folder = file.is_dir();
        if is_folder {
            file.push("index.html");
        }
        // A symbolic link must not lead out of the folder either.
        let file = file.canonicalize().ok().filter(|file| file.starts_with(folder))?;
        // Not a pipe or a device, whose `read` may never end.
        if !file.is_file() {
            return None;
        }
        match is_folder && !path.ends_with('/') {
            true => Some(Found::Folder),
            false => Some(Found::File(file)),
        }
    }
}

/// `Cache-Control` of files: ask each time whether they have changed.
const ASK_EACH_TIME: &str = "no-cache";

/// The response with a file inside the binary, which has no date and is short: whole, or 304.
fn embedded(name: &str, content: &'static [u8], head: &Head) -> Response {
    let etag = hash_etag(content);
    let response = match names_etag(head, &etag) {
        true => Response::empty(304),
        false => Response::new(200, media_type(Path::new(name)), content),
    };
    response
        .with("ETag", etag)
        .with("Cache-Control", ASK_EACH_TIME)
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with("Referrer-Policy", "no-referrer")
}

/// The way to a folder's page, whose relative links need the slash. The reference begins with `./`: whatever the
/// name is, it is neither another host nor another scheme, and proxies may have cut the path.
fn redirect(path: &str, query: Option<&str>) -> Response {
    let name = path.rsplit('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Response::empty(301).with("Location", format!("./{name}/{query}"))
}

/// The response with a file of the folder. The folder is the user's, and so is the policy of its
/// pages: none of ours.
fn whole_or_part(name: &Path, file: File, metadata: &Metadata, head: &Head) -> Response {
    let (length, modified) = (metadata.len(), modified(metadata));
    let etag = file_etag(metadata);
    // Every response says which version of the file it is about, 304 too (section 15.4.5).
    let validated = |response: Response| {
        let response = response.with("ETag", etag.clone()).with("Accept-Ranges", "bytes");
        match modified {
            Some(time) => response.with("Last-Modified", httpdate::fmt_http_date(time)),
            None => response,
        }
    };
    // A tag tells more than a date: where there is one, the date does not count (section 13.2.2).
    let is_known = match head.values("If-None-Match").next() {
        Some(_) => names_etag(head, &etag),
        None => match (modified, head.values("If-Modified-Since").next().and_then(date)) {
            (Some(modified), Some(since)) => modified <= since,
            _ => false,
        },
    };
    if is_known {
        return validated(Response::empty(304));
    }
    // Only behind the conditions: they come first (section 13.2.2).
    match range(head, length, &etag, modified) {
        Range::Whole => {
            let part = FilePart { file, start: 0, length };
            validated(Response::file(200, media_type(name), part))
        }
        Range::Part(bytes) => {
            let (start, last) = bytes.into_inner();
            let part = FilePart { file, start, length: last - start + 1 };
            validated(Response::file(206, media_type(name), part))
                .with("Content-Range", format!("bytes {start}-{last}/{length}"))
        }
        Range::OutOfBounds => {
            let message = format!("the file has {length} bytes; ask for some of them");
            validated(Response::error(416, "bad_range", message))
                .with("Content-Range", format!("bytes */{length}"))
        }
    }
}

/// What a request asks for of a file.
enum Range {
    Whole,
    /// The first and the last byte of the part.
    Part(RangeInclusive<u64>),
    /// No byte that the file has.
    OutOfBounds,
}

/// What `Range` asks for (section 14.2). It only counts for GET, and where `If-Range` names the file
/// as it is. Several parts are more than anybody needs: then, and where the field is malformed, it
/// is ignored, as it may be.
fn range(head: &Head, length: u64, etag: &str, modified: Option<SystemTime>) -> Range {
    let mut fields = head.values("Range");
    let (Some(field), None) = (fields.next(), fields.next()) else { return Range::Whole };
    // The comparison is the strong one: `W/` matches nothing (section 13.1.5).
    let is_current = head
        .values("If-Range")
        .all(|validator| validator == etag || modified.is_some() && modified == date(validator));
    if head.method != "GET" || !is_current {
        return Range::Whole;
    }
    let Ok(parsed) = parse_range_header(field) else { return Range::Whole };
    if parsed.len() != 1 {
        return Range::Whole;
    }
    match parsed.validate(length) {
        Ok(mut parts) => parts.pop().map_or(Range::Whole, Range::Part),
        Err(RangeUnsatisfiableError::Unsatisfiable) => Range::OutOfBounds,
        Err(_) => Range::Whole,
    }
}

/// Whether `If-None-Match` names this tag; the comparison is the weak one (section 13.1.2).
fn names_etag(head: &Head, etag: &str) -> bool {
    let mut tags = head.values("If-None-Match").flat_map(|tags| tags.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// A date in one of the three forms of HTTP (section 5.6.7).
fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// When the file was modified, in whole seconds. `None` for a time that is to come, which must not
/// be told (section 8.8.2.1), or that no HTTP date can hold.
fn modified(metadata: &Metadata) -> Option<SystemTime> {
    let time = metadata.modified().ok()?;
    let seconds = Duration::from_secs(time.duration_since(UNIX_EPOCH).ok()?.as_secs());
    Some(UNIX_EPOCH + seconds).filter(|time| *time <= SystemTime::now())
}

/// A validator that needs no reading: the time of modification, in nanoseconds, and the length. It
/// counts as strong, as with other servers; a file changed twice within one tick of the system's
/// clock, to the same length, would be taken for the same.
fn file_etag(metadata: &Metadata) -> String {
    let nanos = match metadata.modified().unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    format!("\"{nanos:x}-{:x}\"", metadata.len())
}

/// The relative path that a request path stands for; `None` if it could lead elsewhere.
fn relative(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix('/')?;
    let relative = PathBuf::from(String::from_utf8(percent_decode(path)?.into_owned()).ok()?);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let clean = !relative.to_str()?.contains(['\0', '\\']);
    (plain && clean).then_some(relative)
}

/// The media type that the name's extension stands for. Text is taken to be UTF-8.
fn media_type(name: &Path) -> String {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    match guess.type_() == "text" || guess.subtype() == "javascript" {
        true => format!("{guess}; charset=utf-8"),
        false => guess.to_string(),
    }
}

/// A strong validator: a hash of the content. It may change with the Rust release, like the binary.
fn hash_etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_lead_out() {
        assert_eq!(relative("/"), Some(PathBuf::new()));
        assert_eq!(relative("/a/b.txt"), Some(PathBuf::from("a/b.txt")));
        assert_eq!(relative("/a%20b+c&d=e"), Some(PathBuf::from("a b+c&d=e")));
        for bad in
            ["", "a", "/..", "/../x", "/a/../../x", "/%2e%2e/x", "/a%00b", "/..%5Cx", "//etc"]
        {
            assert_eq!(relative(bad), None, "{bad}");
        }
    }

    #[test]
    fn media_types_name_their_charset() {
        let of = |name| media_type(Path::new(name));
        assert_eq!(of("index.html"), "text/html; charset=utf-8");
        assert!(of("app.js").ends_with("javascript; charset=utf-8"), "{}", of("app.js"));
        assert_eq!(of("style.css"), "text/css; charset=utf-8");
        assert_eq!(of("favicon.svg"), "image/svg+xml");
        assert_eq!(of("unknown"), "application/octet-stream");
    }

    #[test]
    fn a_symbolic_link_does_not_lead_out() {
        let base = std::env::temp_dir().join(format!("threadcast-assets-{}", std::process::id()));
        let folder = base.join("www");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(base.join("secret"), "secret").unwrap();
        std::fs::write(folder.join("open"), "open").unwrap();
        std::os::unix::fs::symlink(base.join("secret"), folder.join("link")).unwrap();
        let assets = Assets::new(Some(folder.canonicalize().unwrap()), None);
        assert!(assets.has("/open"));
        assert!(!assets.has("/link"));
        assert!(!assets.has("/"));
        std::fs::remove_dir_all(base).unwrap();
    }
}
