//! `docs/ctr.md`: every command that a `ctr` has stands in it, and what it names is there.

use crate::common::World;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rows: command, here, test.
fn rows() -> Vec<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ctr.md");
    let page = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [command, _, here, test] = cells[..] else { panic!("four cells: {line}") };
        (command.trim_matches('`').to_owned(), here.to_owned(), test.trim_matches('|').trim().to_owned())
    };
    page.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

/// The names of the commands that a help page lists, with the first of their spellings.
fn listed(help: &str) -> Vec<String> {
    let all = help.lines().skip_while(|line| !line.starts_with("COMMANDS:")).skip(1);
    let lines = all.take_while(|line| !line.is_empty() && !line.starts_with("OPTIONS") && !line.starts_with("GLOBAL"));
    let name = |line: &str| line.trim().split([',', ' ']).next().unwrap_or_default().to_owned();
    lines.map(name).filter(|name| !name.is_empty() && name != "help" && !name.ends_with(':')).collect()
}

/// Every command of this version's `ctr` has its row.
fn every_command_has_a_row(world: &World) {
    let known: BTreeSet<String> = rows().into_iter().map(|(command, _, _)| command).collect();
    let mut commands = Vec::new();
    for group in listed(&world.containerd.ctr("default", &["--help"])) {
        let inner = listed(&world.containerd.ctr("default", &[&group, "--help"]));
        match inner.is_empty() {
            true => commands.push(group),
            false => commands.extend(inner.into_iter().map(|name| format!("{group} {name}"))),
        }
    }
    assert!(commands.len() > 60, "{commands:?}");
    let missing: Vec<&String> = commands.iter().filter(|command| !known.contains(*command)).collect();
    assert!(missing.is_empty(), "docs/ctr.md lacks {missing:?}");
}

/// Every test that a row names is there, and every row has one or says why it does nothing.
#[test]
fn every_row_is_true() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tree");
    for (command, here, test) in rows() {
        if test.is_empty() {
            assert!(here.starts_with("not here"), "{command}: no test, and not said why: {here}");
            continue;
        }
        for one in test.split(", ") {
            let Some((file, name)) = one.rsplit_once("::") else { panic!("{command}: {one}") };
            let path = file.replace("::", "/");
            let text = fs::read_to_string(tests.join(format!("{path}.rs")))
                .or_else(|_| fs::read_to_string(tests.join(format!("{path}/mod.rs"))))
                .unwrap_or_else(|e| panic!("{command}: {one}: {e}"));
            assert!(text.contains(&format!("fn {name}(")), "{command}: there is no test {one}");
        }
    }
}

crate::each_version!(every_command_has_a_row);
