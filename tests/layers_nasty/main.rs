//! Odd layers, and what containerd shows of them (`support/nasty`): here each is built by the engine alone and compared
//! with what the overlayfs and the native snapshotter show.

mod show;
#[path = "../support/mod.rs"]
mod support;

use ctrfs::error::{Kind, Result};
use ctrfs::layers::Entry;
use ctrfs::layers::merge::{Chain, ChainLayer, Rootfs, TarLayer};
use ctrfs::layers::tar::Parser;
use show::{Expected, Shown, expected, show};
use support::nasty::*;
use support::tarball::{TIME, tar};

const CREATED: (i64, u32) = (TIME, 0);

fn entries(archive: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut parser = Parser::new();
    parser.push(archive, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    parser.finish()?;
    Ok(entries)
}

enum Way {
    Overlay,
    Native,
    Build,
}

fn build(layers: &[Vec<u8>], way: &Way) -> Result<Rootfs> {
    let entries = layers.iter().map(|layer| entries(layer)).collect::<Result<Vec<_>>>()?;
    let digests: Vec<String> = (0..layers.len()).map(|i| format!("sha256:{i}")).collect();
    let tars: Vec<TarLayer> =
        entries.iter().zip(&digests).map(|(entries, digest)| TarLayer { digest, entries }).collect();
    let chain: Vec<ChainLayer> = tars.iter().map(|&tar| ChainLayer::Tar(tar)).collect();
    let with = Chain { created: CREATED, ..Chain::default() };
    match way {
        Way::Overlay => with.overlay(&chain),
        Way::Native => with.native(&tars),
        Way::Build => with.build(&chain),
    }
}

/// Whether a sentence is the one of the table, in which `…` stands for anything.
fn says(sentence: &str, wanted: &str) -> bool {
    let mut rest = sentence;
    let mut pieces = wanted.split('…');
    let Some(first) = pieces.next() else { return false };
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty()
}

/// What is wrong with the answer, if anything is.
fn complaint(case: &Case, way: &Way, wanted: &str, base: &Shown) -> Option<String> {
    match (build(&case.layers, way), expected(wanted, base)) {
        (Ok(rootfs), Expected::Tree(tree)) => {
            let shown = show(&rootfs, &case.layers);
            let line = |(path, text): (&String, &String)| format!("{path}{text}");
            let differs: Vec<String> = tree
                .iter()
                .filter(|(path, text)| shown.get(*path) != Some(text))
                .map(|pair| format!("- {}", line(pair)))
                .chain(
                    shown
                        .iter()
                        .filter(|(path, text)| tree.get(*path) != Some(text))
                        .map(|pair| format!("+ {}", line(pair))),
                )
                .collect();
            (!differs.is_empty()).then(|| differs.join("\n    "))
        }
        (Err(error), Expected::Fails(sentence))
            if error.kind() != Kind::Corrupt || !says(&error.to_string(), &sentence) =>
        {
            Some(format!("says {error:?}, expected {sentence:?}"))
        }
        (Err(_), Expected::Fails(_)) => None,
        (Ok(_), Expected::Fails(sentence)) => Some(format!("works, expected {sentence:?}")),
        (Err(error), Expected::Tree(_)) => Some(format!("refused: {error:?}")),
    }
}

fn check(cases: Vec<Case>) {
    let base = show(&build(&[tar(&base())], &Way::Overlay).unwrap(), &[tar(&base())]);
    let mut wrong = Vec::new();
    for case in &cases {
        let native = case.native.as_ref().unwrap_or(&case.overlay);
        // Where overlayfs refuses and native does not, native is shown.
        let shown =
            if case.overlay.starts_with("FAILS") && !native.starts_with("FAILS") { native } else { &case.overlay };
        for (way, name, wanted) in
            [(Way::Overlay, "overlay", &case.overlay), (Way::Native, "native", native), (Way::Build, "ctrfs", shown)]
        {
            if let Some(what) = complaint(case, &way, wanted, &base) {
                wrong.push(format!("{} ({name}):\n    {what}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn whiteouts() {
    check(layers::whiteouts());
}

#[test]
fn opaque_directories() {
    check(layers::opaque());
}

#[test]
fn devices_that_are_whiteouts() {
    check(layers::literal_devices());
}

#[test]
fn types_that_change() {
    check(members::types());
}

#[test]
fn duplicates() {
    check(members::duplicates());
}

#[test]
fn hard_links() {
    check(members::hard_links());
}

#[test]
fn names_and_paths() {
    check(names::paths());
    check(names::long_names());
}

#[test]
fn symlinks() {
    check(names::symlinks());
}

#[test]
fn metadata() {
    check(names::metadata());
}

#[test]
fn xattrs() {
    check(names::xattrs());
}

#[test]
fn devices() {
    check(names::devices());
}

#[test]
fn tar_formats() {
    check(tars::formats());
    check(tars::pax());
}

#[test]
fn sparse_files() {
    check(tars::sparse());
}
