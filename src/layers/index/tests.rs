//! Indexes that are written and read back, and what is not believed.

use super::*;
use crate::layers::decode::pass::Watch;
use crate::layers::decode::tests::{Bytes, gzip, sample};
use crate::layers::decode::{Hooks, Limits, pass};
use crate::layers::{Blob, Entry};
use proptest::prelude::*;

fn entry(n: u64) -> Entry {
    let mut entry = Entry {
        name: format!("usr/share/package-{}/file-{n}", n / 7).into_bytes(),
        flag: b'0',
        mode: 0o644,
        size: n * 3,
        mtime: (1_700_000_000 - n as i64, 5),
        data: n * 512,
        ..Entry::default()
    };
    if n.is_multiple_of(5) {
        (entry.flag, entry.link) = (b'2', format!("../target-{n}").into_bytes());
    }
    if n.is_multiple_of(11) {
        entry.xattrs = vec![(b"user.a".to_vec(), vec![0, 255, n as u8]), (b"security.capability".to_vec(), vec![])];
        entry.sparse = vec![(0, 512), (4096, 1)];
        (entry.major, entry.minor) = (8, n as u32);
    }
    entry
}

/// The index of `entries` over some layer.
fn build(root: Option<&Path>, bytes: &[u8], entries: Vec<Entry>) -> Result<Index> {
    let blob = Bytes::new(gzip(bytes, 6));
    let watch = Watch::default();
    let hooks = Hooks { sink: &mut |_| Ok(()), tee: None, watch: &watch, scratch: root };
    let decoded = pass(&blob, &Limits::default(), hooks)?;
    let mut builder = Builder::new(root, 1_000_000);
    for entry in entries {
        builder.push(entry)?;
    }
    let (index, unnamed) = builder.finish(root, &Digest::parse(blob.digest())?, blob.size(), decoded, 7)?;
    unnamed.map_or(Ok(()), Unnamed::name)?;
    Ok(index)
}

#[test]
fn entries_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(9 << 20, 1);
    let entries: Vec<Entry> = (0..40_000).map(entry).collect();
    for root in [Some(dir.path()), None] {
        let index = build(root, &bytes, entries.clone()).unwrap();
        assert_eq!(index.in_memory(), root.is_none());
        assert_eq!((index.len(), index.uncompressed()), (40_000, 9 << 20));
        assert!(index.entries().map(Result::unwrap).eq(entries.iter().cloned()));
        for n in [0, 1, 15, 16, 17, 31, 39_999] {
            assert_eq!(index.entry(n).unwrap(), entries[n]);
        }
        assert!(index.entry(40_000).is_err());
        let most = index.uncompressed() / 100 + 128 * index.len() as u64;
        assert!((index.weight() as u64) < most, "{} of {most}", index.weight());
        assert!(index.restart(0).0 == Checkpoint::default() && index.restart(0).1.is_empty());
        assert!(index.restart(5 << 20).0.output > 2 << 20);
    }
    let index = build(Some(dir.path()), &bytes, Vec::new()).unwrap();
    let again = Index::open(dir.path(), index.digest(), 7).unwrap();
    assert!(again.is_empty() && again.diff_id() == index.diff_id() && !again.needs_spool());
}

#[test]
fn a_file_that_is_not_right_is_deleted_and_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let index = build(Some(dir.path()), &sample(3 << 20, 2), (0..20).map(entry).collect()).unwrap();
    let (digest, path) = (*index.digest(), file::path(dir.path(), index.digest()));
    let good = std::fs::read(&path).unwrap();
    let mut tried = 0;
    // The long section of windows has the same checksum as the rest; every byte of it would take a minute.
    for at in (0..good.len()).filter(|at| *at < 3000 || at % 97 == 0) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        assert!(Index::open(dir.path(), &digest, 7).is_none(), "byte {at}");
        assert!(!path.exists());
        tried += 1;
    }
    assert!(tried > 2000);
    for bad in [&good[..good.len() - 1], &good[..format::HEADER], &good[..20], &[], &[&good[..], &[0]].concat()] {
        std::fs::write(&path, bad).unwrap();
        assert!(Index::open(dir.path(), &digest, 7).is_none());
    }
    std::fs::write(&path, &good).unwrap();
    assert!(Index::open(dir.path(), &digest, 7).is_some());
    assert!(Index::open(dir.path(), &digest, 8).is_none(), "made by another reader");
    // Under the name of another layer.
    let other = Digest::parse(&format!("sha256:{}", "ab".repeat(32))).unwrap();
    let elsewhere = file::path(dir.path(), &other);
    std::fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    std::fs::write(&elsewhere, &good).unwrap();
    assert!(Index::open(dir.path(), &other, 7).is_none());
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let mut builder = Builder::new(None, 3);
    assert!((0..3).all(|n| builder.push(entry(n)).is_ok()));
    assert_eq!(builder.push(entry(3)).unwrap_err().kind(), crate::error::Kind::Corrupt);
}

#[test]
fn the_cap_is_kept_by_last_use() {
    let dir = tempfile::tempdir().unwrap();
    let digests: Vec<Digest> = (0..4)
        .map(|n| *build(Some(dir.path()), &sample(100_000, n), (0..500).map(entry).collect()).unwrap().digest())
        .collect();
    let age = |n: usize, seconds: u64| {
        let file = std::fs::File::open(file::path(dir.path(), &digests[n])).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(seconds)).unwrap();
    };
    (0..4).for_each(|n| age(n, 1000 - n as u64));
    assert!(Index::open(dir.path(), &digests[0], 7).is_some());
    let total = sweep(dir.path(), u64::MAX);
    assert!(sweep(dir.path(), total - 1) < total);
    let left: Vec<bool> = digests.iter().map(|d| file::path(dir.path(), d).exists()).collect();
    assert_eq!(left, [true, false, true, true]);
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let first = (bytes(), any::<u8>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<(i64, u32)>());
    let second = (bytes(), any::<u32>(), any::<u32>(), any::<u64>());
    let lists = (prop::collection::vec((bytes(), bytes()), 0..3), prop::collection::vec(any::<(u64, u64)>(), 0..3));
    (first, second, lists).prop_map(|(a, b, c)| Entry {
        name: a.0,
        flag: a.1,
        mode: a.2,
        uid: a.3,
        gid: a.4,
        size: a.5,
        mtime: a.6,
        link: b.0,
        major: b.1,
        minor: b.2,
        data: b.3,
        xattrs: c.0,
        sparse: c.1,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_entries_come_back(entries in prop::collection::vec(any_entry(), 0..50)) {
        let index = build(None, b"x", entries.clone())?;
        prop_assert!(index.entries().collect::<Result<Vec<_>>>()? == entries);
        for (n, entry) in entries.iter().enumerate() {
            prop_assert_eq!(&index.entry(n)?, entry);
        }
    }

    #[test]
    fn no_bytes_make_the_pools_panic(rows: Vec<u8>, names: Vec<u8>, extras: Vec<u8>, n in 0..100usize) {
        let mut padded = rows.clone();
        padded.resize(rows::ROW * 40, 1);
        let pools = Pools { rows: &padded, names: &names, extras: &extras };
        let _ = pools.entry(n);
        let _ = pools.next(n, &mut vec![1; 300]);
    }
}
