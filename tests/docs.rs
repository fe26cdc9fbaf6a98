//! The documents, held against what they describe.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn tree_md_is_what_the_tables_say() {
    let now = ctrfs::tree::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tree.md"), &now).unwrap();
    }
    assert!(read("docs/tree.md") == now, "docs/tree.md is out of date: UPDATE_DOCS=1 cargo test --test docs writes it");
}

#[test]
fn every_row_of_the_reference_is_a_sentence() {
    for line in ctrfs::tree::reference().lines().filter(|line| line.starts_with("| `")) {
        let sentence = line.trim_end_matches('|').trim().rsplit(" | ").next().unwrap_or_default();
        assert!(sentence.ends_with(['.', '?']), "{line}");
        assert!(sentence.len() > 5, "{line}");
    }
}

#[test]
fn no_directory_has_two_files_of_a_name() {
    for section in ctrfs::tree::reference().split("\n## ").skip(1) {
        let mut names: Vec<&str> = section
            .lines()
            .filter(|line| line.starts_with("| `") && !line.starts_with("| `<") && !line.starts_with("| `…"))
            .filter_map(|line| line.split('`').nth(1))
            .map(|name| name.trim_end_matches('/'))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{section}");
    }
}

#[test]
fn every_option_of_the_command_is_in_the_manual() {
    use clap::CommandFactory;
    let manual = read("docs/ctrfs.8").replace("\\-", "-");
    for argument in ctrfs::cli::Arguments::command().get_arguments() {
        if let Some(long) = argument.get_long() {
            assert!(manual.contains(long), "docs/ctrfs.8 lacks --{long}");
        }
    }
}

#[test]
fn every_errno_of_the_table_is_in_the_semantics() {
    let semantics = read("docs/semantics.md");
    for name in [
        "ENOENT",
        "EEXIST",
        "EINVAL",
        "EBUSY",
        "ENOTEMPTY",
        "EACCES",
        "EPERM",
        "EROFS",
        "EHOSTDOWN",
        "ETIMEDOUT",
        "ENODATA",
        "EBADMSG",
        "EUCLEAN",
        "EOPNOTSUPP",
        "ESTALE",
        "EIO",
        "EPIPE",
        "EAGAIN",
        "EINTR",
    ] {
        assert!(semantics.contains(name), "docs/semantics.md lacks {name}");
    }
}
