//! The decoders against whole decodes and against damage.

use super::live::Live;
use super::*;
use crate::error::Kind;
use crate::layers::Blob;
use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression as Level, FlushCompress};
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// A blob in memory.
pub(in crate::layers) struct Bytes {
    digest: String,
    pub bytes: Vec<u8>,
}

impl Bytes {
    pub(in crate::layers) fn new(bytes: Vec<u8>) -> Bytes {
        Bytes { digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))), bytes }
    }
}

impl Blob for Bytes {
    fn digest(&self) -> &str {
        &self.digest
    }
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.bytes.get(offset as usize..offset as usize + buf.len()) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return crate::fail!(Io, "a read behind the end"),
        }
        Ok(())
    }
}

pub(in crate::layers) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes as layers have them: words, runs and noise, the same for the same seed.
pub(in crate::layers) fn sample(len: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 4096);
    while out.len() < len {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let n = (seed >> 33) as usize;
        match n % 8 {
            0 => out.resize(out.len() + n % 3000, (n >> 8) as u8),
            1 => (0..n % 600).for_each(|i| out.push((seed.rotate_left(i as u32) ^ (i as u64 * 77)) as u8)),
            2 if out.len() > 40_000 => {
                let from = out.len() - 1 - n % 32_000;
                let part = out[from..(from + n % 500).min(out.len())].to_vec();
                out.extend_from_slice(&part);
            }
            _ => out.extend_from_slice(format!("usr/share/doc/package-{}/copyright {n}\n", n % 977).as_bytes()),
        }
    }
    out.truncate(len);
    out
}

pub(in crate::layers) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One member whose blocks were compressed apart and flushed, as pigz does.
fn pigz(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let chunks = bytes.chunks(128 << 10).count();
    for (n, chunk) in bytes.chunks(128 << 10).enumerate() {
        let mut deflate = DeflateEncoder::new(Vec::new(), Level::new(6));
        deflate.write_all(chunk).unwrap();
        if n + 1 == chunks {
            out.extend(deflate.finish().unwrap());
            break;
        }
        let mut raw = flate2::Compress::new(Level::new(6), false);
        let mut part = Vec::with_capacity(chunk.len() * 2 + 1000);
        raw.compress_vec(chunk, &mut part, FlushCompress::Sync).unwrap();
        assert_eq!(raw.total_in(), chunk.len() as u64);
        out.extend(part);
    }
    out.extend(crc32(0, bytes).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

fn skippable(len: u32) -> Vec<u8> {
    let mut out = vec![0x53, 0x2a, 0x4d, 0x18];
    out.extend(len.to_le_bytes());
    out.resize(out.len() + len as usize, 7);
    out
}

/// A pass that keeps the archive.
fn whole(blob: &dyn Blob, limits: &Limits) -> Result<(Vec<u8>, Decoded)> {
    let mut out = Vec::new();
    let mut sink = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let watch = pass::Watch::default();
    let decoded = pass(blob, limits, Hooks { sink: &mut sink, tee: None, watch: &watch, scratch: None })?;
    Ok((out, decoded))
}

fn kind(bytes: Vec<u8>) -> Kind {
    match whole(&Bytes::new(bytes), &Limits::default()) {
        Err(error) => error.kind(),
        Ok(_) => panic!("accepted"),
    }
}

/// Decodes `blob` whole and at random from each checkpoint, and holds the bytes against `expected`.
fn holds(blob: Vec<u8>, expected: &[u8]) -> usize {
    let blob = Bytes::new(blob);
    let (out, decoded) = whole(&blob, &Limits::default()).unwrap();
    assert!(out == expected);
    assert_eq!(decoded.uncompressed, expected.len() as u64);
    assert_eq!(decoded.diff_id, <[u8; 32]>::from(Sha256::digest(expected)));
    let compression = decoded.compression;
    let (table, windows, gap) = decoded.marks.finish(blob.size(), expected.len() as u64).unwrap();
    assert!(gap <= 32 << 20);
    for (n, c) in table.iter().enumerate() {
        let mut window = Vec::new();
        windows.read(c.window.0, c.window.1 as usize, &mut window).unwrap();
        let mut live = Live::at(&blob, compression, c, &window, 27).unwrap();
        let rest = expected.len() - c.output as usize;
        let len = if n % 3 == 0 { rest } else { rest.min(3 << 20) };
        let mut got = vec![0; len];
        for part in got.chunks_mut(70_001) {
            live.read(&blob, part).unwrap();
        }
        assert!(got == expected[c.output as usize..c.output as usize + len], "checkpoint {n}: {c:?}");
        if len == rest {
            assert_eq!(live.read(&blob, &mut [0]).unwrap_err().kind(), Kind::Corrupt);
        }
    }
    table.len()
}

#[test]
fn gzip_of_every_kind_restarts_at_its_checkpoints() {
    let bytes = sample(20 << 20, 1);
    for level in [0, 1, 6, 9] {
        // The fastest level makes blocks of many megabytes, and a block has no places inside it.
        let least = if level == 1 { 2 } else { 6 };
        assert!(holds(gzip(&bytes, level), &bytes) >= least, "level {level}");
    }
    assert!(holds(pigz(&bytes), &bytes) > 5);
    let members: Vec<u8> = bytes.chunks(700_001).flat_map(|part| gzip(part, 6)).collect();
    assert!(holds(members, &bytes) > 20);
    let mut with_empty = gzip(&[], 6);
    with_empty.extend(gzip(&bytes[..5_000_000], 6));
    with_empty.extend(gzip(&[], 6));
    holds(with_empty, &bytes[..5_000_000]);
    holds(gzip(&[], 6), &[]);
}

#[test]
fn zstd_frames_are_places_to_restart_at() {
    let bytes = sample(5 << 20, 2);
    let frame = |part: &[u8]| ::zstd::bulk::compress(part, 3).unwrap();
    assert_eq!(holds(frame(&bytes), &bytes), 1);
    let frames: Vec<u8> = bytes.chunks(1 << 20).flat_map(frame).collect();
    assert_eq!(holds(frames, &bytes), 5);
    let mut mixed = skippable(12);
    mixed.extend(frame(&bytes[..1_000_000]));
    mixed.extend(skippable(0));
    mixed.extend(skippable(300_000));
    mixed.extend(frame(&bytes[1_000_000..]));
    mixed.extend(skippable(5));
    assert!(holds(mixed, &bytes) > 1);
    let mut streamed = ::zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    streamed.include_checksum(true).unwrap();
    streamed.write_all(&bytes).unwrap();
    holds(streamed.finish().unwrap(), &bytes);
}

#[test]
fn a_plain_archive_is_what_it_is() {
    let bytes = sample(1 << 20, 3);
    for bytes in [&bytes[..], &[], b"ab"] {
        let (out, decoded) = whole(&Bytes::new(bytes.to_vec()), &Limits::default()).unwrap();
        assert!(out == bytes && decoded.compression == Compression::Plain);
        assert_eq!(decoded.diff_id, <[u8; 32]>::from(Sha256::digest(bytes)));
    }
    // Named by the other algorithm: the diffID is made with SHA-256 all the same.
    for blob in [bytes.clone(), gzip(&bytes, 6)] {
        let mut named = Bytes::new(blob);
        named.digest = format!("sha512:{}", hex::encode(sha2::Sha512::digest(&named.bytes)));
        let (_, decoded) = whole(&named, &Limits::default()).unwrap();
        assert_eq!(decoded.diff_id, <[u8; 32]>::from(Sha256::digest(&bytes)));
        named.bytes[77] ^= 1;
        assert_eq!(whole(&named, &Limits::default()).err().unwrap().kind(), Kind::Digest);
    }
}

#[test]
fn damage_is_told() {
    let bytes = sample(300_000, 4);
    let good = gzip(&bytes, 6);
    let with = |more: &[u8]| [&good[..], more].concat();
    for (what, blob) in [
        ("trailing garbage", with(b"garbage")),
        ("trailing zeros", with(&[0; 512])),
        ("one trailing byte", with(&[0x1f])),
        ("half", good[..good.len() / 2].to_vec()),
        ("no trailer", good[..good.len() - 8].to_vec()),
        ("half a trailer", good[..good.len() - 4].to_vec()),
        ("a header alone", good[..10].to_vec()),
        ("three bytes", good[..3].to_vec()),
    ] {
        assert_eq!(kind(blob), Kind::Corrupt, "{what}");
    }
    for at in [good.len() - 1, good.len() - 5, good.len() / 2] {
        let mut blob = good.clone();
        blob[at] ^= 0x10;
        assert_eq!(kind(blob), Kind::Corrupt, "byte {at}");
    }
    let frame = ::zstd::bulk::compress(&bytes, 3).unwrap();
    for blob in [[&frame[..], b"garbage"].concat(), [&frame[..], &[0; 512]].concat(), [&frame[..], &[0x28]].concat()] {
        assert_eq!(kind(blob), Kind::Corrupt);
    }
    for len in [8, 100, frame.len() / 2, frame.len() - 1] {
        assert_eq!(kind(frame[..len].to_vec()), Kind::Corrupt, "{len}");
    }
    assert_eq!(kind(skippable(100)[..50].to_vec()), Kind::Corrupt);
}

#[test]
fn altered_bytes_are_said_to_be_just_that() {
    // Damage and another digest: the digest is what is wrong, for the maker of the layer is not to blame.
    for blob in [gzip(&sample(3_000_000, 5), 6), sample(1000, 6)] {
        let mut altered = Bytes::new(blob);
        let middle = altered.bytes.len() / 2;
        altered.bytes[middle] ^= 1;
        let error = whole(&altered, &Limits::default()).err().unwrap();
        assert_eq!(error.kind(), Kind::Digest);
    }
}

#[test]
fn a_bomb_and_a_failing_sink_end_the_pass() {
    let bomb = Bytes::new(gzip(&vec![0; 50 << 20], 9));
    let limits = Limits { uncompressed: 1 << 20, ..Limits::default() };
    assert_eq!(whole(&bomb, &limits).err().unwrap().kind(), Kind::Corrupt);
    let mut sink = |_: &[u8]| crate::fail!(Unsupported, "not this");
    let watch = pass::Watch::default();
    let hooks = Hooks { sink: &mut sink, tee: None, watch: &watch, scratch: None };
    assert_eq!(pass(&bomb, &Limits::default(), hooks).err().unwrap().kind(), Kind::Unsupported);
}

#[test]
fn a_window_that_is_too_large_is_refused() {
    let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&sample(17 << 20, 7)).unwrap();
    let blob = Bytes::new(encoder.finish().unwrap());
    let limits = Limits { window_log: 23, ..Limits::default() };
    assert_eq!(whole(&blob, &limits).err().unwrap().kind(), Kind::Unsupported);
    assert!(whole(&blob, &Limits::default()).is_ok());
}

#[test]
fn the_magic_is_containerds() {
    assert_eq!(Compression::sniff(&[0x1f, 0x8b, 8]), Compression::Gzip);
    assert_eq!(Compression::sniff(&[0x1f, 0x8b, 7]), Compression::Plain);
    assert_eq!(Compression::sniff(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
    assert_eq!(Compression::sniff(&skippable(1)), Compression::Zstd);
    assert_eq!(Compression::sniff(&skippable(0)[..7]), Compression::Plain);
    assert_eq!(Compression::sniff(&[]), Compression::Plain);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    #[test]
    fn no_bytes_make_a_decoder_panic(head in 0..4usize, mut bytes: Vec<u8>, at: usize, flip: u8) {
        let starts = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18], &[]];
        let mut blob = starts[head].to_vec();
        blob.append(&mut bytes);
        let _ = whole(&Bytes::new(blob), &Limits::default());
        let mut blob = if head % 2 == 0 { gzip(&sample(5000, 1), 6) } else { ::zstd::bulk::compress(&sample(5000, 1), 3)? };
        let at = at % blob.len();
        blob[at] ^= flip;
        let _ = whole(&Bytes::new(blob), &Limits::default());
    }
}
