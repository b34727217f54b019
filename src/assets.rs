//! The page: inside the binary, or from the folder given with `--www`.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::path::{Component, Path, PathBuf};

use crate::door::head::percent_decode;
use crate::http::Response;

/// The files inside the binary, by path.
const EMBEDDED: &[(&str, &[u8])] = &[
    ("index.html", include_bytes!("../www/index.html")),
    ("app.js", include_bytes!("../www/app.js")),
    ("style.css", include_bytes!("../www/style.css")),
    ("favicon.svg", include_bytes!("../www/favicon.svg")),
];

/// The built-in page loads nothing from elsewhere, runs nothing inline, and is not to be framed.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Where files come from.
#[derive(Debug)]
pub struct Assets {
    folder: Option<PathBuf>,
}

impl Assets {
    /// `folder` as in [`crate::Config::www`], canonical.
    pub fn new(folder: Option<PathBuf>) -> Assets {
        Assets { folder }
    }

    /// Whether there is a file at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.load(path).is_some()
    }

    /// The file at `path`, 304 where the client has it already (`If-None-Match`), or 404.
    pub fn answer(&self, path: &str, if_none_match: Option<&str>) -> Response {
        let Some((name, body)) = self.load(path) else {
            return not_found();
        };
        let etag = etag(&body);
        let known = if_none_match.is_some_and(|tags| {
            tags.trim() == "*"
                || tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
        });
        let answer = match known {
            true => Response::empty(304),
            false => Response::new(200, media_type(&name), body),
        };
        // `no-cache` means: ask each time, with the ETag.
        let answer = answer.with("ETag", etag).with("Cache-Control", "no-cache");
        match &self.folder {
            // The folder is the user's, and so is the policy of its pages.
            Some(_) => answer,
            None => answer
                .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
                .with("Referrer-Policy", "no-referrer"),
        }
    }

    /// The file's name and content.
    fn load(&self, path: &str) -> Option<(PathBuf, Vec<u8>)> {
        let name = relative(path)?;
        let Some(folder) = &self.folder else {
            let name = if name.as_os_str().is_empty() { Path::new("index.html") } else { &name };
            let found = EMBEDDED.iter().find(|(known, _)| Path::new(known) == name);
            return found.map(|(name, body)| (PathBuf::from(name), body.to_vec()));
        };
        let mut file = folder.join(name);
        if file.is_dir() {
            file.push("index.html");
        }
        // A symbolic link must not lead out of the folder either.
        let file = file.canonicalize().ok().filter(|file| file.starts_with(folder))?;
        // Not a pipe or a device, whose `read` may never end.
        if !file.is_file() {
            return None;
        }
        let body = std::fs::read(&file).ok()?;
        Some((file, body))
    }
}

/// The answer for a path that leads nowhere.
pub fn not_found() -> Response {
    Response::error(404, "not_found", "there is nothing here; the README lists what there is")
}

/// The relative path that a request path stands for; `None` if it could lead elsewhere.
fn relative(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix('/')?;
    let relative = PathBuf::from(String::from_utf8(percent_decode(path)?.into_owned()).ok()?);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let clean = !relative.to_str()?.contains(['\0', '\\']);
    (plain && clean).then_some(relative)
}

fn media_type(name: &Path) -> String {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    match guess.type_() == "text" || guess.subtype() == "javascript" {
        true => format!("{guess}; charset=utf-8"),
        false => guess.to_string(),
    }
}

/// A strong validator: a hash of the content.
fn etag(body: &[u8]) -> String {
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
        let assets = Assets::new(Some(folder.canonicalize().unwrap()));
        assert!(assets.has("/open"));
        assert!(!assets.has("/link"));
        assert!(!assets.has("/"));
        std::fs::remove_dir_all(base).unwrap();
    }
}
