//! Any bytes as a layer: an error, or a view in which everything agrees with decoders that are not ours.

use super::shown::shown;
use ctrfs::error::{Kind, Result};
use ctrfs::layers::decode::{Digest, Limits as DecodeLimits};
use ctrfs::layers::merge::{Chain, ChainLayer, TarLayer};
use ctrfs::layers::reader::{Member, Reader};
use ctrfs::layers::store::{Config, Scan, Store};
use ctrfs::layers::tar::{Limits, Parser};
use ctrfs::layers::{Blob, Entry};
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest archive that is looked at.
const ARCHIVE: u64 = 4 << 20;

struct Bytes {
    digest: String,
    data: Vec<u8>,
}

impl Blob for Bytes {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let from = usize::try_from(offset).unwrap();
        buf.copy_from_slice(self.data.get(from..from + buf.len()).expect("nobody reads behind the end of a blob"));
        Ok(())
    }
}

#[derive(Default)]
struct Scanner(Parser);

impl Scan for Scanner {
    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.0.push(bytes, emit)
    }

    fn finish(&mut self, _: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.0.finish()
    }
}

/// The archive in a blob, by other decoders than ours; None if they refuse it, or it is longer than `limit`.
pub fn unpack(data: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut archive = Vec::new();
    let most = limit as u64 + 1;
    if data.starts_with(&[0x1f, 0x8b, 8]) {
        flate2::read::MultiGzDecoder::new(data).take(most).read_to_end(&mut archive).ok()?;
    } else if data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (data.len() >= 8 && data[1..].starts_with(&[0x2a, 0x4d, 0x18]))
    {
        zstd::stream::read::Decoder::new(data).ok()?.take(most).read_to_end(&mut archive).ok()?;
    } else {
        archive.extend_from_slice(data);
    }
    (archive.len() <= limit).then_some(archive)
}

fn parse<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Entry>, Result<()>) {
    let (mut entries, mut parser) = (Vec::new(), Parser::new());
    let pushed = pieces.try_for_each(|piece| {
        parser.push(piece, &mut |entry| {
            entries.push(entry);
            Ok(())
        })
    });
    let answer = pushed.and_then(|()| parser.finish());
    (entries, answer)
}

/// What is damage, and what is only unusual: nothing else may come of the bytes of a blob.
fn is_of_the_blob(kind: Kind) -> bool {
    matches!(kind, Kind::Corrupt | Kind::Unsupported | Kind::TooLong)
}

pub fn check(data: &[u8]) {
    let digest = Sha256::digest(data);
    let blob: Arc<dyn Blob> =
        Arc::new(Bytes { digest: format!("sha256:{}", hex::encode(digest)), data: data.to_vec() });
    let limits = DecodeLimits { uncompressed: ARCHIVE, ..DecodeLimits::default() };
    let config = Config { limits, spool_cap: 0, ..Config::new(1, || Box::new(Scanner::default())) };
    let store = Store::open(None, config);
    let patience = || Ok(Instant::now() + Duration::from_secs(60));
    let answer = store.index(&blob, "application/vnd.oci.image.layer.v1.tar+gzip", &patience);
    let archive = unpack(data, ARCHIVE as usize);
    let parsed = archive.as_ref().map(|archive| parse([&archive[..]].into_iter()));
    let index = match answer {
        Ok(index) => index,
        Err(error) => {
            assert!(is_of_the_blob(error.kind()), "{error:?}");
            let accepted = parsed.is_some_and(|(_, answer)| answer.is_ok());
            assert!(!accepted, "others take what is refused: {error}");
            return;
        }
    };
    let archive = archive.expect("others refuse what is taken");
    let (entries, answer) = parsed.expect("there is an archive");
    answer.expect("the pass took what the parser refuses");
    let step = 1 + usize::from(digest[0]) * 7;
    let (in_pieces, answer) = parse(archive.chunks(step));
    answer.expect("the size of the pieces matters");
    assert_eq!(in_pieces, entries, "in pieces of {step}");
    let indexed: Vec<Entry> = index.entries().map(|entry| entry.expect("an entry of a good index")).collect();
    assert_eq!(indexed, entries, "what the index gives back");
    assert_eq!(index.uncompressed(), archive.len() as u64);
    assert_eq!(index.diff_id(), Digest::Sha256(Sha256::digest(&archive).into()));
    reads(&store.reader(blob, &index), &archive, &entries, &digest);
    let limits = Limits { work: 1_000_000, nodes: 100_000, ..Limits::default() };
    let chain = Chain { created: (1, 0), limits };
    let layer = TarLayer { digest: "sha256:0", entries: &entries };
    for rootfs in [chain.build(&[ChainLayer::Tar(layer)]), chain.alone(layer)] {
        match rootfs {
            Ok(rootfs) => drop(shown(&rootfs, Some(archive.len() as u64))),
            Err(error) => assert!(is_of_the_blob(error.kind()), "{error:?}"),
        }
    }
}

/// What is read in the middle is what stands there, in whatever order.
fn reads(reader: &Reader, archive: &[u8], entries: &[Entry], digest: &[u8]) {
    let total = archive.len();
    for pair in digest.chunks(4) {
        let place = usize::from(pair[0]) << 8 | usize::from(pair[1]);
        let from = place * (total + 1) / 65_536;
        let length = (usize::from(pair[2]) << (pair[3] % 8)).min(total - from);
        let mut buffer = vec![0xa5; length];
        reader.read_at(from as u64, &mut buffer).unwrap_or_else(|error| panic!("{length} at {from}: {error:?}"));
        assert!(buffer == archive[from..from + length], "{length} bytes at {from} of {total}");
    }
    let mut beyond = [0; 2];
    assert!(reader.read_at((total as u64).saturating_sub(1), &mut beyond).is_err(), "a read behind the end");
    for entry in entries.iter().rev().filter(|entry| entry.flag == b'0').take(64) {
        let member = Member::of(entry);
        let mut buffer = vec![0xa5; member.size.min(1 << 20) as usize];
        let Ok(read) = reader.read_member(&member, 0, &mut buffer) else {
            panic!("{:?} cannot be read", entry.name.escape_ascii().to_string());
        };
        assert_eq!(read, buffer.len());
        assert!(buffer == content(entry, archive, buffer.len()), "{}", entry.name.escape_ascii());
    }
}

/// The first bytes of a member, put together by hand.
fn content(entry: &Entry, archive: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut at = entry.data as usize;
    let whole = [(0, entry.size)];
    for &(offset, held) in if entry.sparse.is_empty() { &whole[..] } else { &entry.sparse } {
        let from = (offset as usize).min(length);
        let to = (offset + held).min(length as u64) as usize;
        out[from..to.max(from)].copy_from_slice(&archive[at..at + to.max(from) - from]);
        at += held as usize;
    }
    out
}
