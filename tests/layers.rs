//! The layers of `src`: a module uses only what stands below it, and no two modules use each other,
//! not even through others. This reads the paths in the source; nothing is run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the highest down. `src/lib.rs` tells the same order; here is where it is checked.
const LAYERS: [&str; 24] = [
    "docs", "main", "flags", "builder", "server", "router", "routes", "handlers", "session",
    "request", "sources", "app", "hub", "store", "client", "auth", "listener", "door", "config",
    "assets", "event", "ws", "http", "os",
];

/// Each module and those that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => files(&path, found),
            Some(extension) if extension == "rs" => found.push(path),
            _ => {}
        }
    }
}

/// `hub/mod.rs` is the module `hub`, `hub/mailbox.rs` is `hub::mailbox`.
fn module(path: &Path) -> String {
    let name = path.with_extension("").to_str().unwrap().replace('/', "::");
    name.strip_suffix("::mod").unwrap_or(&name).to_owned()
}

/// The source without comments and without its inline tests, which may use anything.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let without = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

/// All paths in a piece of source that begins behind `prefix::`: one, or several in braces.
fn paths(rest: &str) -> Vec<String> {
    let is_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
    let end = rest.find(|letter| !is_path(letter)).unwrap_or(rest.len());
    let (path, behind) = rest.split_at(end);
    let Some(group) = behind.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with(':'))
    else {
        return vec![path.to_owned()];
    };
    let (mut depth, mut item, mut found) = (0, String::new(), Vec::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if letter == ',' && depth == 0 {
            found.push(std::mem::take(&mut item));
        } else {
            item.push(letter);
        }
    }
    found.push(item);
    let items = found.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    items.flat_map(|item| paths(item).into_iter().map(|tail| format!("{path}{tail}"))).collect()
}

/// The modules that the source of `of` uses.
fn used(of: &str, text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let parent = of.rsplit_once("::").map_or("", |(parent, _)| parent);
    let children = modules.iter().filter_map(|one| one.strip_prefix(&format!("{of}::")));
    let mut starts = vec![("crate".to_owned(), String::new())];
    starts.push(("super".to_owned(), parent.to_owned()));
    starts.extend(children.map(|child| (child.to_owned(), format!("{of}::{child}"))));
    let mut found = BTreeSet::new();
    for (word, base) in starts {
        for (position, _) in text.match_indices(&format!("{word}::")) {
            let before = text[..position].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || "_:".contains(before) {
                continue;
            }
            for path in paths(&text[position + word.len() + 2..]) {
                let path = if base.is_empty() { path } else { format!("{base}::{path}") };
                // The longest beginning of the path that is a module; else an item of the crate's root.
                let ends = path.match_indices("::").map(|(end, _)| end).chain([path.len()]);
                let ends = ends.collect::<Vec<_>>().into_iter().rev();
                let module = ends.map(|end| &path[..end]).find(|one| modules.contains(*one));
                found.insert(module.unwrap_or("lib").to_owned());
            }
        }
    }
    found.remove(of);
    found
}

fn read() -> Uses {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&root, &mut all);
    let module_of = |path: &PathBuf| module(path.strip_prefix(&root).unwrap());
    let modules: BTreeSet<String> = all.iter().map(module_of).collect();
    let uses = all.iter().map(|path| {
        let text = code(&std::fs::read_to_string(path).unwrap());
        let of = module_of(path);
        let used = used(&of, &text, &modules);
        (of, used)
    });
    // The crate's root holds only modules and what it shows of them.
    uses.filter(|(of, _)| of != "lib").collect()
}

fn layer(module: &str) -> usize {
    let name = module.split("::").next().unwrap_or_default();
    let place = LAYERS.iter().position(|layer| *layer == name);
    place.unwrap_or_else(|| panic!("{module} is in no layer: name it in tests/layers.rs"))
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let uses = read();
    assert!(uses.len() > 40, "only {} modules were found", uses.len());
    let mut upwards = Vec::new();
    for (of, used) in &uses {
        for one in used {
            if one == "lib" || layer(one) < layer(of) {
                upwards.push(format!("{of} uses {one}"));
            }
        }
    }
    assert!(upwards.is_empty(), "upwards:\n{}", upwards.join("\n"));
}

#[test]
fn no_modules_use_each_other() {
    let mut left = read();
    // Whoever uses nothing that is left is in no circle.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, used| used.iter().any(|one| names.contains(one)));
        if left.len() == before {
            break;
        }
    }
    let names: BTreeSet<&String> = left.keys().collect();
    let circle: Vec<String> = left
        .iter()
        .map(|(of, used)| {
            let used: Vec<_> = used.iter().filter(|one| names.contains(one)).collect();
            format!("{of} uses {used:?}")
        })
        .collect();
    assert!(circle.is_empty(), "in circles, or above one:\n{}", circle.join("\n"));
}

#[test]
fn paths_are_found_however_they_are_written() {
    let modules = ["a", "a::b", "c", "d::e"].map(str::to_owned).into();
    let text = code(
        "use crate::{c, a::{b, X}};\n// use crate::d::e;\nfn f() { crate::Y; super::z() }\n\
         #[cfg(test)]\nmod tests { use crate::d::e; }",
    );
    let found: Vec<_> = used("d::e", &text, &modules).into_iter().collect();
    assert_eq!(found, ["a", "a::b", "c", "lib"]);
    assert_eq!(used("a", "use b::Z;", &modules), ["a::b".to_owned()].into());
}
