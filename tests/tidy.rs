//! The shape of the source, held against `docs/architecture.md`: what may import what, how long a function or a file
//! may be, where each foreign world stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest function and the longest file, in lines.
const FUNCTION: usize = 75;
const FILE: usize = 420;

/// Which modules each module may name. What is not listed may name everything.
const IMPORTS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("wait", &["error"]),
    ("cli", &["error"]),
    ("attach", &["error"]),
    ("node", &["error", "wait"]),
    ("containerd", &["error", "wait"]),
    ("layers", &["error", "wait"]),
    ("run", &["error", "wait", "containerd"]),
    ("tree", &["error", "wait", "node", "containerd", "layers", "run"]),
    ("mount", &["error", "wait", "node"]),
    ("invalidate", &["error", "wait", "node", "containerd", "mount"]),
];

/// Crates that belong to one place.
const FOREIGN: &[(&str, &[&str])] = &[
    ("fuser::", &["mount", "invalidate", "daemon"]),
    ("tonic::", &["containerd"]),
    ("tokio::", &["containerd"]),
    ("containerd_client::", &["containerd"]),
    ("libz_rs_sys::", &["layers"]),
    ("oci_client::", &["run"]),
    ("libc::mount", &["attach"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// The module that a file belongs to: the first part of its path below `src/`.
fn module(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The lines that are code: no comments, and nothing behind `#[cfg(test)]`, which ends each file that has it.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..tests].lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn imports_run_one_way() {
    let rules: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        let Some(allowed) = rules.get(own.as_str()) else { continue };
        for (number, line) in code(&text) {
            for named in line.split("crate::").skip(1) {
                let name: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let known = name == own || allowed.contains(&name.as_str()) || name == "fail" || name.is_empty();
                // A list of modules behind one `crate::` is looked at word by word.
                let list = named.strip_prefix('{').map(|list| list.split('}').next().unwrap_or_default());
                let listed = list.into_iter().flat_map(|list| list.split([',', ' ', ':'])).filter(|w| !w.is_empty());
                let strange = listed.filter(|word| rules.contains_key(word) && *word != own && !allowed.contains(word));
                if !known || strange.count() > 0 {
                    wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against docs/architecture.md:\n{}", wrong.join("\n"));
}

#[test]
fn foreign_worlds_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        for (number, line) in code(&text) {
            for (name, places) in FOREIGN {
                if line.contains(name) && !places.contains(&own.as_str()) {
                    wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "outside of their module:\n{}", wrong.join("\n"));
}

#[test]
fn functions_and_files_can_be_read_at_a_sitting() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        let mut open: Option<(usize, usize, &str)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = line.trim_start();
            let is_fn =
                ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "const fn ", "pub const fn ", "async fn "]
                    .iter()
                    .any(|head| starts.starts_with(head));
            if open.is_none() && is_fn && !line.ends_with(';') && !line.ends_with('}') {
                open = Some((number, indent, line));
            } else if let Some((start, depth, head)) = open
                && indent == depth
                && starts.starts_with('}')
            {
                if number - start + 1 > FUNCTION {
                    wrong.push(format!(
                        "{}:{}: {} lines: {}",
                        path.display(),
                        start + 1,
                        number - start + 1,
                        head.trim()
                    ));
                }
                open = None;
            }
        }
    }
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

#[test]
fn each_file_of_the_tree_says_where_it_is_mounted() {
    let helpers = ["name.rs", "tag.rs", "text.rs", "links.rs"];
    for (path, text) in sources() {
        let name = path.file_name().unwrap().to_string_lossy();
        let is_engine = path.starts_with("src/tree/rootfs");
        if module(&path) != "tree" || helpers.contains(&&*name) || is_engine {
            continue;
        }
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! `/"), "{}: begins with {first:?}", path.display());
    }
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    for (path, text) in sources() {
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}
