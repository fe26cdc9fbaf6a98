//! The tar parser: however the bytes come, and whatever they are.

mod support;

use ctrfs::error::Result;
use ctrfs::layers::Entry;
use ctrfs::layers::merge::{Chain, ChainLayer, TarLayer};
use ctrfs::layers::tar::{Limits, Parser};
use support::tarball::*;

fn parse(pieces: &[&[u8]], limits: Limits) -> (Vec<Entry>, Result<()>) {
    let mut entries = Vec::new();
    let mut parser = Parser::with_limits(limits);
    let mut sink = |entry| {
        entries.push(entry);
        Ok(())
    };
    let pushed = pieces.iter().try_for_each(|piece| parser.push(piece, &mut sink));
    let answer = pushed.and_then(|()| parser.finish());
    (entries, answer)
}

/// An archive with something of everything; an old sparse member is read, but never applied.
fn sample(with_old: bool) -> Vec<u8> {
    let mut long = member(b'L', "././@LongLink");
    long.content = [&[b'n'; 200][..], b"/", &[b'n'; 200], b"\0"].concat();
    let mut global = member(b'g', "pax_global_header");
    global.content = record(b"comment", b"of all");
    let mut sparse = f("GNUSparse.0/s", [&b"2\n1\n2\n5\n1\n"[..], &[0; 502], b"abc"].concat());
    for (key, value) in [("major", "1"), ("minor", "0"), ("name", "s"), ("realsize", "70000")] {
        sparse = sparse.pax(format!("GNU.sparse.{key}"), value);
    }
    let mut old = member(b'S', "old").field(257, 8, b"ustar  \0".to_vec()).field(482, 1, vec![1]);
    (old.content, old.size) = ([0; 512].to_vec(), Some(0));
    let mut members = vec![
        d("usr/").mode(0o755),
        f("usr/a", vec![b'x'; 1500]).xattr("user.k", "v").pax("mtime", "1700000001.5"),
        f("x", "long").after(long.bytes()),
        h("usr/b", "usr/a"),
        s("l", "usr/a"),
        c("null", 1, 3),
        member(b'6', "fifo"),
        f("after-global", "y").after(global.bytes()),
        sparse,
        f("usr/.wh.gone", ""),
        f("last", "z"),
    ];
    if with_old {
        members.insert(3, old);
    }
    tar(&members)
}

#[test]
fn the_size_of_the_pieces_makes_no_difference() {
    let archive = sample(true);
    let (whole, answer) = parse(&[&archive], Limits::default());
    answer.unwrap();
    assert_eq!(whole.len(), 13);
    for size in [1, 2, 3, 7, 511, 512, 513, 1000, 4096] {
        let pieces: Vec<&[u8]> = archive.chunks(size).collect();
        let (entries, answer) = parse(&pieces, Limits::default());
        answer.unwrap();
        assert_eq!(entries, whole, "pieces of {size}");
    }
}

#[test]
fn a_content_begins_where_the_entry_says() {
    let archive = sample(true);
    let (entries, _) = parse(&[&archive], Limits::default());
    let of = |name: &str| entries.iter().find(|entry| entry.name == name.as_bytes()).unwrap();
    let at = |entry: &Entry, length: usize| archive[entry.data as usize..][..length].to_vec();
    assert_eq!(at(of("usr/a"), 1500), vec![b'x'; 1500]);
    assert_eq!(at(of("s"), 3), b"abc");
    assert_eq!(at(of("last"), 1), b"z");
    assert_eq!(of("s").size, 70000);
    assert_eq!(of("s").sparse, [(1, 2), (5, 1)]);
    assert_eq!(of("usr/a").mtime, (1_700_000_001, 500_000_000));
}

#[test]
fn a_failure_is_told_again() {
    let mut parser = Parser::new();
    let mut sink = |_| Ok(());
    let first = parser.push(&[1; 512], &mut sink).unwrap_err().to_string();
    assert_eq!(parser.push(&[0; 512], &mut sink).unwrap_err().to_string(), first);
    assert_eq!(parser.finish().unwrap_err().to_string(), first);
}

#[test]
fn an_archive_cut_anywhere_gives_a_part_or_an_error() {
    let archive = sample(true);
    let (whole, _) = parse(&[&archive], Limits::default());
    for end in 0..archive.len() {
        let (entries, _) = parse(&[&archive[..end]], Limits::default());
        assert!(whole.starts_with(&entries), "{end}");
    }
}

#[test]
fn the_limits_hold() {
    let small = Limits { entries: 100, bytes: 5000, ..Limits::default() };
    let many = open(&vec![f("a", ""); 200]);
    let (entries, answer) = parse(&[&many], small);
    assert_eq!((entries.len(), answer.unwrap_err().kind()), (100, ctrfs::error::Kind::TooLong));
    let long = open(&vec![f("n".repeat(90), ""); 90]);
    let (entries, answer) = parse(&[&long], small);
    assert!(entries.len() < 60 && answer.is_err());
    // One member can imply two thousand directories, and each link multiplies the steps of the next.
    let deep = tar(&[f(format!("{}f", "d/".repeat(2000)), "")]);
    assert!(build(&deep, Limits { nodes: 1000, ..Limits::default() }).is_err());
    assert!(build(&deep, Limits { work: 1000, ..Limits::default() }).is_err());
    assert!(build(&deep, Limits::default()).is_ok());
}

fn build(archive: &[u8], limits: Limits) -> Result<usize> {
    let (entries, answer) = parse(&[archive], limits);
    answer?;
    let layer = || ChainLayer::Tar(TarLayer { digest: "sha256:0", entries: &entries });
    let rootfs = Chain { created: (TIME, 0), limits }.build(&[layer(), layer()])?;
    let mut count = 0;
    let mut dirs = vec![rootfs.root()];
    while let Some(dir) = dirs.pop() {
        for (name, handle, attr) in rootfs.readdir(&dir)? {
            count += 1;
            assert!(rootfs.lookup(&dir, &name)?.is_some());
            if attr.kind == ctrfs::layers::tree::Type::Dir {
                dirs.push(handle);
            }
        }
    }
    rootfs.hidden(&mut |_| Ok(()))?;
    Ok(count)
}

/// A generator good enough to damage archives with.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

#[test]
fn a_damaged_archive_never_panics() {
    let archive = sample(false);
    build(&archive, Limits::default()).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for _ in 0..4000 {
        let mut bytes = archive.clone();
        for _ in 0..=random.next(4) {
            let at = random.next(bytes.len());
            bytes[at] = match random.next(4) {
                0 => b'0' + random.next(10) as u8,
                1 => bytes[random.next(archive.len())],
                2 => *b"/.\0=\n5gxLKS".get(random.next(11)).unwrap(),
                _ => random.next(256) as u8,
            };
            // Most damage is meant to get past the checksum.
            let block = at / 512 * 512;
            if bytes[block + 257..block + 262] == *b"ustar" && random.next(8) > 0 {
                seal((&mut bytes[block..block + 512]).try_into().unwrap());
            }
        }
        if random.next(20) == 0 {
            bytes.truncate(random.next(archive.len()));
        }
        let limits = Limits { work: 1_000_000, nodes: 10_000, ..Limits::default() };
        let (entries, _) = parse(&[&bytes], limits);
        assert!(entries.len() <= bytes.len() / 512);
        accepted += usize::from(build(&bytes, limits).is_ok());
    }
    assert!(accepted > 100, "{accepted}");
}
