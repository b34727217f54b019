//! What an embedding program sees: `tests/api.txt` lists the items at the crate's root, so that each change of
//! them is seen in review. No signature names a type of another crate than `std`. This reads the source;
//! nothing is run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The types and traits of `std` that signatures may name.
const STD: &str = "Arc AsRef BTreeSet Box Clone Copy Cow Debug Default Display Drop Duration Eq Error Fn \
    FnOnce From FromStr Hash Into IntoIterator IpAddr Item Iterator Option Ord PartialEq PartialOrd Path \
    PathBuf Result Send SocketAddr String Sync Vec";

/// A source file: its module (`hub::mailbox`) and its lines, without inline tests.
struct File {
    module: String,
    lines: Vec<String>,
}

fn read(folder: &Path, root: &Path, found: &mut Vec<File>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|one| one.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read(&path, root, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root).unwrap().with_extension("");
            let module = name.to_str().unwrap().replace('/', "::");
            let text = fs::read_to_string(path).unwrap();
            let text = text.split("\n#[cfg(test)]").next().unwrap();
            found.push(File {
                module: module.strip_suffix("::mod").unwrap_or(&module).to_owned(),
                lines: text.lines().map(str::to_owned).collect(),
            });
        }
    }
}

/// What `src/lib.rs` re-exports: each name, and the module that it names.
fn exported(files: &[File]) -> Vec<(String, String)> {
    let root = files.iter().find(|file| file.module == "lib").unwrap();
    let uses =
        root.lines.iter().filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';'));
    uses.flat_map(|path| {
        let (module, names) = path.rsplit_once("::").unwrap();
        let names = names.trim_matches(['{', '}']).split(", ");
        names.map(|name| (name.to_owned(), module.to_owned())).collect::<Vec<_>>()
    })
    .collect()
}

/// A line up to where `word` ends, if it begins with `start` and names this word next.
fn declares(line: &str, start: &str, word: &str) -> bool {
    let rest = line.strip_prefix(start).and_then(|rest| rest.strip_prefix(word));
    rest.is_some_and(|rest| {
        !rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
    })
}

fn is_declaration(line: &str, name: &str) -> bool {
    ["pub struct ", "pub enum ", "pub type ", "pub trait "]
        .iter()
        .any(|kind| declares(line, kind, name))
}

/// The type that an `impl` line is about, and whether it is of a trait.
fn implemented(line: &str) -> Option<(&str, bool)> {
    let rest = line.strip_prefix("impl")?.trim_end_matches(['{', '}']).trim_end();
    let rest = match rest.strip_prefix('<') {
        Some(generics) => generics.split_once("> ")?.1,
        None => rest.trim_start(),
    };
    let (of, is_trait) = match rest.split_once(" for ") {
        Some((_, of)) => (of, true),
        None => (rest, false),
    };
    Some((of.split('<').next()?, is_trait))
}

/// The lines of the block that begins at `start`: up to the first that is indented as little.
fn block(lines: &[String], start: usize) -> &[String] {
    let end = lines[start + 1..].iter().position(|line| line.starts_with('}'));
    end.map_or(&[], |end| &lines[start + 1..start + 1 + end])
}

/// Whether attributes above this line hide it from the documentation.
fn is_hidden(lines: &[String], at: usize) -> bool {
    let above = lines[..at].iter().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("#[") || line.starts_with("//")
    });
    above.into_iter().any(|line| line.trim() == "#[doc(hidden)]")
}

/// Lines of source from `at` on as one, up to the body.
fn one_line(lines: &[String], at: usize) -> String {
    let mut text = String::new();
    for line in &lines[at..] {
        text.extend([line.trim(), " "]);
        if line.ends_with(['{', ';', '}']) {
            break;
        }
    }
    let text = text.trim().trim_end_matches(['{', '}', ';']).trim();
    // `mut` is a matter of the body.
    text.replace("( ", "(").replace(", )", ")").replace("(mut self", "(self")
}

/// The public functions, constants, fields or variants of a block, indented.
fn members(lines: &[String], is_enum: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(member) = line.strip_prefix("    ") else { continue };
        let is_variant = is_enum && member.starts_with(char::is_uppercase);
        if is_hidden(lines, at) || !(member.starts_with("pub ") || is_variant) {
            continue;
        }
        let text = match member.ends_with(',') {
            true => member.trim_end_matches(',').to_owned(),
            false => one_line(lines, at),
        };
        found.push(format!("    {}", text.strip_prefix("pub ").unwrap_or(&text)));
    }
    found
}

/// The listing.
fn listing(files: &[File]) -> String {
    let mut text = String::new();
    for (name, module) in exported(files) {
        let is_below =
            |file: &File| file.module == module || file.module.starts_with(&format!("{module}::"));
        let mut found = files.iter().filter(|file| is_below(file)).filter_map(|file| {
            file.lines.iter().position(|line| is_declaration(line, &name)).map(|at| (file, at))
        });
        let (home, at) = found.next().unwrap_or_else(|| panic!("no {name} in {module}"));
        assert!(found.next().is_none(), "several {name} in {module}");

        let mut lines = vec![one_line(&home.lines, at)];
        let declaration = &home.lines[at];
        let is_enum = declaration.starts_with("pub enum");
        let above = home.lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        lines.extend(above.map(|line| format!("    {line}")).collect::<Vec<_>>().into_iter().rev());
        if declaration.ends_with('{') {
            lines.extend(members(block(&home.lines, at), is_enum));
        }
        for file in files {
            // Another type of the same name has another module.
            let import = format!("use crate::{}::", home.module);
            let is_child = file.module.rsplit_once("::").is_some_and(|(of, _)| of == home.module);
            let is_user = |line: &String| {
                let from_parent = line.strip_prefix("use super::").filter(|_| is_child);
                line.strip_prefix(&import).or(from_parent).is_some_and(|rest| {
                    rest.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == name)
                })
            };
            if file.module != home.module && !file.lines.iter().any(is_user) {
                continue;
            }
            for (at, line) in file.lines.iter().enumerate() {
                match implemented(line) {
                    Some((of, false)) if of == name => {
                        lines.extend(members(block(&file.lines, at), false));
                    }
                    Some((of, true)) if of == name && file.module == home.module => {
                        lines.push(format!("    {}", one_line(&file.lines, at)));
                    }
                    _ => {}
                }
            }
        }
        text += &lines.join("\n");
        text += "\n\n";
    }
    text
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    read(&root, &root, &mut files);
    files
}

#[test]
fn the_public_surface_is_the_one_that_is_listed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api.txt");
    let found = listing(&sources());
    if std::env::var_os("UPDATE_API").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (new, old) = (lines(&found), lines(&listed));
    let added: Vec<_> = new.difference(&old).map(|line| format!("+ {line}")).collect();
    let removed: Vec<_> = old.difference(&new).map(|line| format!("- {line}")).collect();
    assert!(
        found == listed,
        "the public surface has changed:\n{}\nIf that is meant, run `UPDATE_API=1 cargo test --test api` and \
         commit tests/api.txt.",
        [removed, added].concat().join("\n")
    );
}

#[test]
fn signatures_name_no_types_of_other_crates() {
    let files = sources();
    let own: BTreeSet<String> = exported(&files).into_iter().map(|(name, _)| name).collect();
    let mut foreign = Vec::new();
    for line in listing(&files).lines() {
        // A variant's own name is none of a type.
        let is_variant =
            line.starts_with("    ") && line.trim_start().starts_with(char::is_uppercase);
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let words = words.filter(|word| word.starts_with(char::is_uppercase));
        for word in words.skip(usize::from(is_variant)) {
            let is_generic = word.len() == 1;
            let is_std = STD.split_whitespace().any(|known| known == word);
            if !is_generic && !is_std && !own.contains(word) {
                foreign.push(format!("{word} in {}", line.trim()));
            }
        }
    }
    assert!(foreign.is_empty(), "neither std's, nor at the crate's root:\n{}", foreign.join("\n"));
}
