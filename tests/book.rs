//! What README and book name is there: files, modules, types, functions. Text is compared with text; nothing
//! is run. (Code in them is compiled as doctests, or run by `tests/clients/book_checks.py`.)

use std::fs;
use std::path::{Path, PathBuf};

/// Crates whose items are named besides ours.
const OTHER_CRATES: [&str; 4] = ["signal_hook", "std", "tiny_http", "tungstenite"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and chapters: name and text.
fn pages() -> Vec<(String, String)> {
    let chapters = fs::read_dir(root().join("src/docs")).unwrap();
    let chapters = chapters.map(|entry| entry.unwrap().path());
    let chapters = chapters.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let all = chapters.chain([root().join("README.md"), root().join("tests/README.md")]);
    all.map(|path| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    })
    .collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// What stands in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The source files below a folder: path from `src` on, and text.
fn source(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root().join("src")).unwrap().to_owned();
            found.push((name, fs::read_to_string(path).unwrap()));
        }
    }
}

/// `rest` if the line goes on with it behind `word`, and the word ends there.
fn behind<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(word)?;
    (!rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')).then_some(rest)
}

/// Without `pub`, `pub(crate)` and the like.
fn without_visibility(line: &str) -> &str {
    match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or(line, |(_, rest)| rest),
        Some(rest) => rest.trim_start(),
        None => line,
    }
}

/// Whether a line declares an item of this name, outside of `impl` blocks.
fn declares_item(line: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"];
    let line = without_visibility(line);
    kinds.iter().any(|kind| {
        behind(line, kind).is_some_and(|rest| behind(rest.trim_start(), name).is_some())
    })
}

/// Whether a line declares a method, a constant, a variant or a field of this name.
fn declares_member(line: &str, name: &str) -> bool {
    let Some(line) = line.strip_prefix("    ") else { return false };
    let variant_or_field = behind(without_visibility(line), name);
    declares_item(line, name)
        || variant_or_field
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([',', '(', ' ', ':']))
}

/// The module of a file: `hub/mod.rs` is `hub`, `hub/mailbox.rs` is `hub::mailbox`.
fn module(file: &Path) -> String {
    let name = file.with_extension("").display().to_string().replace('/', "::");
    name.strip_suffix("::mod").unwrap_or(&name).to_owned()
}

/// Whether there is such a module, item or member.
fn is_there(path: &str, files: &[(PathBuf, String)]) -> bool {
    let has = |text: &str, test: &dyn Fn(&str) -> bool| text.lines().any(test);
    let path = path.strip_prefix("crate::").unwrap_or(path);
    let is_module = |path: &str| files.iter().any(|(file, _)| module(file) == path);
    if is_module(path) {
        return true;
    }
    let (parent, last) = path.rsplit_once("::").unwrap_or(("", path));
    let is_item = |file: &Path, text: &str, within: &str, name: &str| {
        let is_within = within.is_empty() || module(file) == within;
        is_within && has(text, &|line| declares_item(line, name))
    };
    if is_module(parent) {
        return files.iter().any(|(file, text)| is_item(file, text, parent, last));
    }
    // A member: its type is in the module that the path names, or in any; its `impl` blocks may be in other
    // files of that folder.
    let (within, owner) = parent.rsplit_once("::").unwrap_or(("", parent));
    files.iter().filter(|(file, text)| is_item(file, text, within, owner)).any(|(file, _)| {
        let is_near = |other: &Path| {
            other == file || file.ends_with("mod.rs") && other.parent() == file.parent()
        };
        files
            .iter()
            .any(|(other, text)| is_near(other) && has(text, &|line| declares_member(line, last)))
    })
}

/// Whether a text in backquotes is the path of an item.
fn is_item_path(text: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|letter: char| letter.is_alphabetic())
            && part.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    };
    text.contains("::") && text.split("::").all(is_name)
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut count = 0;
    for (page, text) in pages() {
        let prose = prose(&text);
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for path in quoted(&prose).into_iter().chain(links) {
            let is_own = ["src/", "tests/", "www/"].iter().any(|folder| path.starts_with(folder));
            // Patterns and commands are no paths.
            if is_own && !path.contains(['*', ' ', '<']) {
                assert!(root().join(path).exists(), "{page} names {path}");
                count += 1;
            }
        }
    }
    assert!(count > 80, "only {count} paths were found");
}

#[test]
fn every_item_that_is_named_is_there() {
    let mut files = Vec::new();
    source(&root().join("src"), &mut files);
    let (mut missing, mut count) = (Vec::new(), 0);
    for (page, text) in pages() {
        let prose = prose(&text);
        for path in quoted(&prose) {
            let path = path.strip_suffix("()").unwrap_or(path);
            let is_other = OTHER_CRATES.iter().any(|name| path.starts_with(&format!("{name}::")));
            if is_item_path(path) && !is_other {
                count += 1;
                if !is_there(path, &files) {
                    missing.push(format!("{page} names {path}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in src:\n{}", missing.join("\n"));
    assert!(count > 30, "only {count} items were found");
}

#[test]
fn what_is_not_there_is_found_out() {
    let mut files = Vec::new();
    source(&root().join("src"), &mut files);
    for path in [
        "hub",
        "hub::mailbox",
        "hub::Hub",
        "hub::Hub::publish",
        "Reason::Slow",
        "client::outbox::Outbox::write_piece",
        "crate::os::send::send_now",
    ] {
        assert!(is_there(path, &files), "{path}");
    }
    for path in ["hub::nothing", "hub::publish", "hub::Hub::publis", "Nothing::new", "Reason::Sl"] {
        assert!(!is_there(path, &files), "{path}");
    }
}
