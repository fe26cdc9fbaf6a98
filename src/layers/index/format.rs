//! The layout of an index file: a header with the facts about the layer, and five sections, each with a checksum.
//!
//! All numbers are little-endian. The sections follow the header and one another without gaps to the end of the file,
//! so that a file with anything missing or added is not one of ours.

use super::super::decode::{Checkpoint, Compression, Digest, crc32};
use crate::error::Result;
use crate::fail;
use std::ops::Range;

/// The layout's version: another layout lies under another directory too.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"ctrfsidx";

/// The parts of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Rows,
    Names,
    Extras,
    Checkpoints,
    Windows,
}

/// How many parts there are.
pub(super) const SECTIONS: usize = 5;

/// The facts about a layer and where the sections lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub parser: u32,
    pub compression: Compression,
    pub digest: Digest,
    pub size: u64,
    pub diff_id: [u8; 32],
    pub uncompressed: u64,
    /// The largest stretch between two checkpoints.
    pub gap: u64,
    pub entries: u64,
    /// Length and checksum of each section.
    pub table: [(u64, u32); SECTIONS],
}

/// The length of a header.
pub(super) const HEADER: usize = 8 + 4 + 4 + 4 + 64 + 8 + 32 + 8 + 8 + 8 + SECTIONS * 12 + 4;

impl Header {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.parser.to_le_bytes());
        let algorithm = matches!(self.digest, Digest::Sha512(_)).into();
        out.extend_from_slice(&[self.compression.code(), algorithm, 0, 0]);
        let mut digest = [0; 64];
        digest[..self.digest.bytes().len()].copy_from_slice(self.digest.bytes());
        out.extend_from_slice(&digest);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.diff_id);
        for number in [self.uncompressed, self.gap, self.entries] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for (len, crc) in self.table {
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32(0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn read(file: &[u8], parser: u32) -> Result<Header> {
        let bad = |what: &str| fail!(Corrupt, "an index file {what}");
        let Some(header) = file.get(..HEADER) else { return bad("that is cut off") };
        let mut at = Fields(header);
        if at.take() != MAGIC || u32::from_le_bytes(at.take()) != VERSION {
            return bad("of another format");
        }
        if crc32(0, &header[..HEADER - 4]).to_le_bytes() != header[HEADER - 4..] {
            return bad("with a damaged header");
        }
        if u32::from_le_bytes(at.take()) != parser {
            return bad("of another reader");
        }
        let [compression, algorithm, _, _] = at.take::<4>();
        let Some(compression) = Compression::from_code(compression) else { return bad("of an unknown compression") };
        let long: [u8; 64] = at.take();
        let mut short = [0; 32];
        short.copy_from_slice(&long[..32]);
        let digest = if algorithm == 0 { Digest::Sha256(short) } else { Digest::Sha512(long) };
        let size = at.number();
        let diff_id = at.take();
        let (uncompressed, gap, entries) = (at.number(), at.number(), at.number());
        let mut table = [(0, 0); SECTIONS];
        for row in &mut table {
            *row = (at.number(), u32::from_le_bytes(at.take()));
        }
        if entries > u64::from(u32::MAX) {
            return bad("with too many entries");
        }
        Ok(Header { parser, compression, digest, size, diff_id, uncompressed, gap, entries, table })
    }

    /// Where the sections lie in `file`, after their checksums were found right.
    pub(super) fn sections(&self, file: &[u8]) -> Result<[Range<usize>; SECTIONS]> {
        let mut ranges: [Range<usize>; SECTIONS] = Default::default();
        let mut at = HEADER;
        for (range, (len, crc)) in ranges.iter_mut().zip(self.table) {
            let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len));
            let Some((end, bytes)) = end.and_then(|end| Some((end, file.get(at..end)?))) else {
                return fail!(Corrupt, "an index file that is cut off");
            };
            if crc32(0, bytes) != crc {
                return fail!(Corrupt, "an index file with a damaged section");
            }
            *range = at..end;
            at = end;
        }
        if at != file.len() {
            return fail!(Corrupt, "an index file with something behind it");
        }
        Ok(ranges)
    }
}

/// Reads fields from the front of a slice; what is not there reads as zero.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => {
                self.0 = &[];
                [0; N]
            }
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

/// The length of a checkpoint.
pub(super) const CHECKPOINT: usize = 8 + 8 + 8 + 4 + 4;

pub(super) fn write_checkpoint(c: &Checkpoint) -> [u8; CHECKPOINT] {
    let mut out = [0; CHECKPOINT];
    out[..8].copy_from_slice(&c.input.to_le_bytes());
    out[8..16].copy_from_slice(&c.output.to_le_bytes());
    out[16..24].copy_from_slice(&c.window.0.to_le_bytes());
    out[24..28].copy_from_slice(&c.window.1.to_le_bytes());
    out[28] = c.bits;
    out[29] = c.raw.into();
    out
}

pub(super) fn read_checkpoint(row: &[u8]) -> Checkpoint {
    let mut at = Fields(row);
    let (input, output) = (at.number(), at.number());
    let window = (at.number(), at.word());
    let [bits, raw, _, _] = at.take::<4>();
    Checkpoint { input, output, window, bits, raw: raw != 0 }
}
