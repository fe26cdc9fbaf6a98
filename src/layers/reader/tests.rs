//! Random reads against the whole archive.

use super::*;
use crate::layers::Entry;
use crate::layers::decode::tests::{Bytes, GZIP, gzip, sample};
use crate::layers::store::Store;
use crate::layers::store::tests::{config, patient};
use std::sync::atomic::{AtomicU64, Ordering};

/// A blob that counts what is read of it.
struct Counted(Bytes, AtomicU64);

impl Blob for Counted {
    fn digest(&self) -> &str {
        self.0.digest()
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buf)
    }
}

fn reader(blob: Vec<u8>, spools: bool) -> (Reader, Arc<Counted>, Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.spool_cap = if spools { 2 << 30 } else { 0 };
    let store = Store::open(Some(dir.path()), config);
    let counted = Arc::new(Counted(Bytes::new(blob), AtomicU64::new(0)));
    let blob: Arc<dyn Blob> = counted.clone();
    let index = store.index(&blob, GZIP, &patient).unwrap();
    counted.1.store(0, Ordering::Relaxed);
    (store.reader(blob, &index), counted, store, dir)
}

fn random_reads(reader: &Reader, bytes: &[u8], times: u64, seed: u64) {
    let mut state = seed;
    for _ in 0..times {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let offset = (state >> 20) as usize % bytes.len();
        let len = ((state >> 50) as usize % 200_000).min(bytes.len() - offset);
        let mut got = vec![0; len];
        reader.read_at(offset as u64, &mut got).unwrap();
        assert!(got == bytes[offset..offset + len], "{len} at {offset}");
    }
}

#[test]
fn random_reads_are_the_bytes_of_the_archive() {
    let bytes = sample(24 << 20, 1);
    let frames: Vec<u8> = bytes.chunks(3 << 20).flat_map(|part| zstd::bulk::compress(part, 3).unwrap()).collect();
    let members: Vec<u8> = bytes.chunks(1_234_567).flat_map(|part| gzip(part, 6)).collect();
    let blobs = [gzip(&bytes, 6), gzip(&bytes, 1), members, frames, bytes.clone()];
    for blob in blobs {
        let (reader, ..) = reader(blob, false);
        std::thread::scope(|scope| {
            for seed in 1..5 {
                let (reader, bytes) = (&reader, &bytes);
                scope.spawn(move || random_reads(reader, bytes, 60, seed));
            }
        });
        assert_eq!(reader.read_at(bytes.len() as u64, &mut [0]).unwrap_err().kind(), Kind::Corrupt);
        assert!(reader.read_at(u64::MAX, &mut [0]).is_err());
        reader.read_at(bytes.len() as u64, &mut []).unwrap();
    }
}

#[test]
fn reading_on_decodes_each_byte_once() {
    let bytes = sample(24 << 20, 2);
    let (reader, blob, ..) = reader(gzip(&bytes, 6), false);
    let mut got = vec![0; bytes.len()];
    for (n, part) in got.chunks_mut(100_000).enumerate() {
        reader.read_at(n as u64 * 100_000, part).unwrap();
    }
    assert!(got == bytes);
    assert!(blob.1.load(Ordering::Relaxed) <= blob.size() + (1 << 20));
}

#[test]
fn readers_ahead_of_one_another_share_the_decoding() {
    let bytes = sample(24 << 20, 3);
    let (reader, blob, ..) = reader(gzip(&bytes, 6), false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (reader, bytes) = (&reader, &bytes);
            scope.spawn(move || {
                for n in (thread..bytes.len() >> 17).step_by(4) {
                    let mut got = vec![0; 1 << 17];
                    reader.read_at((n as u64) << 17, &mut got).unwrap();
                    assert!(got == bytes[n << 17..(n + 1) << 17]);
                }
            });
        }
    });
    let read = blob.1.load(Ordering::Relaxed);
    assert!(read <= 2 * blob.size(), "{read} of {}", blob.size());
}

#[test]
fn one_large_frame_is_spooled_by_the_pass() {
    let bytes = sample(20 << 20, 4);
    let (reader, blob, store, _dir) = reader(zstd::bulk::compress(&bytes, 3).unwrap(), true);
    assert!(reader.index().needs_spool());
    assert!(reader.spooled().is_some());
    random_reads(&reader, &bytes, 50, 1);
    assert_eq!(blob.1.load(Ordering::Relaxed), 0);
    store.forget(blob.digest());
    assert!(reader.spooled().is_none());
    random_reads(&reader, &bytes, 5, 2);
}

#[test]
fn what_is_read_again_and_again_is_spooled() {
    let bytes = sample(24 << 20, 5);
    let (reader, _blob, _store, _dir) = reader(gzip(&bytes, 6), true);
    assert!(reader.spooled().is_none());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut seed = 0;
    while reader.spooled().is_none() && std::time::Instant::now() < until {
        seed += 1;
        reader.shared.spans.clear();
        random_reads(&reader, &bytes, 5, seed);
    }
    assert!(reader.spooled().is_some());
    random_reads(&reader, &bytes, 20, 1);
}

#[test]
fn the_holes_of_a_sparse_file_are_zero() {
    let bytes = sample(1 << 20, 6);
    let (reader, ..) = reader(gzip(&bytes, 6), false);
    let sparse = vec![(1000, 500), (1500, 10), (4000, 0), (5000, 3000), (9000, 0)];
    let entry = Entry { data: 777, size: 9000, sparse, ..Entry::default() };
    let mut whole = vec![0; 9000];
    whole[1000..1510].copy_from_slice(&bytes[777..1287]);
    whole[5000..8000].copy_from_slice(&bytes[1287..4287]);
    let member = Member::of(&entry);
    for (offset, len) in [(0, 9000), (0, 10), (999, 3), (1499, 2), (1505, 4000), (7999, 100), (8999, 100), (9000, 5)] {
        let mut got = vec![9; len];
        let n = reader.read_member(&member, offset, &mut got).unwrap();
        assert_eq!(n, len.min(9000 - offset as usize));
        assert!(got[..n] == whole[offset as usize..offset as usize + n], "{len} at {offset}");
    }
    let plain = Member::of(&Entry { data: 10, size: 20, ..Entry::default() });
    let mut got = [0; 50];
    assert_eq!(reader.read_member(&plain, 5, &mut got).unwrap(), 15);
    assert_eq!(got[..15], bytes[15..30]);
    for odd in [vec![(u64::MAX, u64::MAX), (0, u64::MAX)], vec![(5, 1), (0, 1)]] {
        let member = Member::of(&Entry { data: u64::MAX - 3, size: u64::MAX, sparse: odd, ..Entry::default() });
        let _ = reader.read_member(&member, 0, &mut [0; 100]);
        let _ = reader.read_member(&member, u64::MAX - 50, &mut [0; 100]);
    }
}
