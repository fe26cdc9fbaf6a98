//! GNU sparse members: which parts of a file the archive holds (Go archive/tar, `handleSparseFile` and below).

use super::header::{BLOCK, numeric};
use super::pax::{SparseKeys, decimal};
use super::{invalid, too_long};
use crate::error::Result;

/// Parts of a file that hold data, as (offset in the file, length).
pub(super) type Map = Vec<(i64, i64)>;

/// Where the map of a sparse PAX member stands.
pub(super) enum Place {
    /// It is no sparse member.
    None,
    /// In the records (formats 0.0 and 0.1).
    Records,
    /// At the head of the content (format 1.0).
    Content,
}

impl SparseKeys {
    /// The format, by its version records, or guessed where there are none.
    pub(super) fn place(&self) -> Place {
        match (&self.major[..], &self.minor[..]) {
            (b"0", b"0" | b"1") => Place::Records,
            (b"1", b"0") => Place::Content,
            (b"", b"") if !self.map.is_empty() => Place::Records,
            _ => Place::None,
        }
    }

    /// The size of the expanded file, where the records tell it.
    pub(super) fn file_size(&self) -> Result<Option<i64>> {
        let size = if self.size.is_empty() { &self.real_size } else { &self.size };
        if size.is_empty() { Ok(None) } else { decimal(size).map(Some) }
    }

    /// The map of formats 0.0 and 0.1: pairs of numbers between commas, as many as `numblocks` says.
    pub(super) fn records_map(&self) -> Result<Map> {
        let count = decimal(&self.blocks)?;
        let numbers: Vec<&[u8]> =
            if self.map.is_empty() { Vec::new() } else { self.map.split(|&b| b == b',').collect() };
        if count.checked_mul(2) != i64::try_from(numbers.len()).ok() {
            return Err(invalid());
        }
        numbers.chunks_exact(2).map(|pair| Ok((decimal(pair[0])?, decimal(pair[1])?))).collect()
    }
}

/// Collects the map of format 1.0: lines of decimal numbers, the first their number of pairs, in whole blocks at the
/// head of the content.
#[derive(Debug, Default)]
pub(super) struct ContentMap {
    text: Vec<u8>,
    lines: usize,
}

impl ContentMap {
    /// Takes the next block; the map, once it is complete. `limit` is Go's bound for headers (CVE-2025-58183).
    pub(super) fn push(&mut self, block: &[u8; BLOCK], limit: usize) -> Result<Option<Map>> {
        if self.text.len() + BLOCK > limit {
            return Err(too_long());
        }
        self.text.extend_from_slice(block);
        self.lines += block.iter().filter(|&&b| b == b'\n').count();
        if self.lines == 0 {
            return Ok(None);
        }
        let mut lines = self.text.split(|&b| b == b'\n');
        let pairs = usize::try_from(decimal(lines.next().unwrap_or_default())?).map_err(|_| invalid())?;
        let needed = pairs.checked_mul(2).and_then(|n| n.checked_add(1)).ok_or_else(invalid)?;
        if self.lines < needed {
            return Ok(None);
        }
        let mut map = Map::with_capacity(pairs);
        for _ in 0..pairs {
            let offset = decimal(lines.next().unwrap_or_default())?;
            map.push((offset, decimal(lines.next().unwrap_or_default())?));
        }
        Ok(Some(map))
    }
}

/// Adds the entries that an old GNU header (four at 386) or its extension block (21 at 0) holds; true if another
/// extension block follows.
pub(super) fn old_entries(block: &[u8; BLOCK], extension: bool, map: &mut Map) -> Result<bool> {
    let (fields, count) = if extension { (&block[..], 21) } else { (&block[386..], 4) };
    for entry in fields.chunks_exact(24).take(count) {
        if entry[0] == 0 {
            break;
        }
        map.push((numeric(&entry[..12])?, numeric(&entry[12..])?));
    }
    Ok(fields[24 * count] > 0)
}

/// Checks that the parts lie in order, apart, and within the file, and returns them unsigned. A file without any part
/// gets an empty one at its end, so that it is told from an ordinary file.
pub(super) fn validate(map: &Map, size: i64) -> Result<Vec<(u64, u64)>> {
    let mut end = 0;
    for &(offset, length) in map {
        let valid = offset >= end && length >= 0;
        end = offset.checked_add(length).filter(|&end| valid && end <= size).ok_or_else(invalid)?;
    }
    if size < 0 {
        return Err(invalid());
    }
    if map.is_empty() {
        return Ok(vec![(size as u64, 0)]);
    }
    Ok(map.iter().map(|&(offset, length)| (offset as u64, length as u64)).collect())
}
