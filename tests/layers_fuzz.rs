//! The fuzz targets on their stored corpus (tests/fuzz), which is made here from the odd layers. `contrib/fuzz` goes on from
//! there; what it found and what was mended stays in the corpus as `found-*`.
//!
//! `UPDATE_CORPUS=1 cargo test --test layers_fuzz` writes the corpus anew.

mod support;

#[path = "fuzz/targets/layer.rs"]
mod layer;
#[path = "fuzz/targets/merge.rs"]
mod merge;
#[path = "fuzz/targets/shown.rs"]
mod shown;

use ctrfs::layers::Entry;
use ctrfs::layers::tar::Parser;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use support::nasty;
use support::tarball::{d, f, h, s, tar};

/// All of a stored corpus may take so much, in bytes.
const MOST: u64 = 1 << 20;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn entries(archive: &[u8]) -> Option<Vec<Entry>> {
    let (mut entries, mut parser) = (Vec::new(), Parser::new());
    let mut sink = |entry| {
        entries.push(entry);
        Ok(())
    };
    parser.push(archive, &mut sink).ok()?;
    parser.finish().ok()?;
    Some(entries)
}

/// What compression and length bring in: members and frames, stored blocks, archives of several blocks.
fn compressed() -> Vec<Vec<u8>> {
    let mut state = 1u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    // Half of it noise, half of it not.
    let noise: Vec<u8> =
        (0..20_000).map(|n| if n / 100 % 2 == 0 { next() as u8 } else { b'a' + n as u8 % 16 }).collect();
    let archive = tar(&[d("usr/"), f("usr/noise", &noise), h("usr/same", "usr/noise"), s("l", "usr"), f("last", "z")]);
    let (head, tail) = archive.split_at(archive.len() / 2);
    let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
    vec![
        gzip(&archive),
        [gzip(head), gzip(tail)].concat(),
        [gzip(&archive), vec![0; 16]].concat(),
        gzip(&archive)[..8000].to_vec(),
        frame(&archive),
        [frame(head), skippable.clone(), frame(tail)].concat(),
        [skippable, frame(&archive)].concat(),
        gzip(&tar(&[f("zeros", vec![0; 200_000]), f("a", "x")])),
        gzip(b""),
        Vec::new(),
    ]
}

/// The inputs that stand for the odd layers, by name.
fn made() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut put = |target: &str, bytes: Vec<u8>| {
        let name = &hex::encode(Sha256::digest(&bytes))[..16];
        all.insert(corpus(target).join(name), bytes);
    };
    for case in nasty::all() {
        for layer in &case.layers {
            let packed = gzip(layer);
            // A long or a noisy one teaches a fuzzer little.
            if packed.len() < 2000 && layer.len() < 64 << 10 {
                put("layer", packed);
            }
        }
        let parsed: Option<Vec<Vec<Entry>>> = case.layers.iter().map(|layer| entries(layer)).collect();
        let text = parsed.map(|layers| merge::write(&layers)).filter(|text| text.len() < 4000);
        text.into_iter().for_each(|text| put("merge", text));
    }
    compressed().into_iter().for_each(|blob| put("layer", blob));
    all
}

fn stored(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn the_corpus_is_made_of_the_odd_layers() {
    let made = made();
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        for target in ["layer", "merge"] {
            for path in stored(target)
                .keys()
                .filter(|path| !path.file_name().unwrap().as_encoded_bytes().starts_with(b"found-"))
            {
                std::fs::remove_file(path).unwrap();
            }
        }
        made.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    let stored: BTreeMap<PathBuf, Vec<u8>> = ["layer", "merge"].into_iter().flat_map(stored).collect();
    for path in made.keys() {
        assert!(stored.contains_key(path), "{} is missing: UPDATE_CORPUS=1 writes it", path.display());
    }
    let bytes: u64 = stored.values().map(|bytes| bytes.len() as u64).sum();
    assert!(stored.len() > 200 && bytes < MOST, "{} files, {bytes} bytes", stored.len());
}

/// Runs all of a corpus; says which input it was.
#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    for (path, bytes) in stored(target) {
        let answer = std::panic::catch_unwind(|| check(&bytes));
        assert!(answer.is_ok(), "the input {}", path.display());
    }
}

#[test]
fn the_layer_reader_stands_its_corpus() {
    replay("layer", layer::check);
}

#[test]
fn the_merge_stands_its_corpus() {
    replay("merge", merge::check);
}

/// What is written for the merge is what is read, but for content, which the merge does not look at.
#[test]
fn a_chain_survives_its_text() {
    let members = [d("d/").mode(0o2750).owner(3, 4), f("d/a", "x").xattr("user.k", "v=w"), h("b", "d/a"), s("l", "d")];
    let chain = [entries(&tar(&members)).unwrap(), entries(&tar(&[f("d/.wh.a", "")])).unwrap()];
    let again = merge::read(&merge::write(&chain));
    let facts = |entry: &Entry| Entry { data: 0, ..entry.clone() };
    let facts = |layers: &[Vec<Entry>]| -> Vec<Vec<Entry>> {
        layers.iter().map(|layer| layer.iter().map(facts).collect()).collect()
    };
    assert_eq!(facts(&again), facts(&chain));
}
