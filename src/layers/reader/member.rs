//! The content of one member of the archive: also of a sparse one, whose holes are zero.

use super::Reader;
use crate::error::Result;
use crate::layers::Entry;

/// Where the content of a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The size of the file that it shows.
    pub size: u64,
    data: u64,
    /// Offset in the file, length, and offset in the archive of what is no hole, in order; none for a file without
    /// holes.
    parts: Option<Vec<(u64, u64, u64)>>,
}

impl Member {
    /// The content of `entry`.
    pub fn of(entry: &Entry) -> Member {
        let mut data = entry.data;
        let mut parts = Vec::with_capacity(entry.sparse.len());
        for &(offset, len) in &entry.sparse {
            parts.push((offset, len, data));
            data = data.saturating_add(len);
        }
        Member { size: entry.size, data: entry.data, parts: (!parts.is_empty()).then_some(parts) }
    }

    /// The parts of `buf`, which holds the bytes of the file at `offset`, that are no hole: where in the archive they
    /// are read from, and where in `buf` they belong.
    fn pieces(&self, offset: u64, len: u64) -> Vec<(u64, std::ops::Range<usize>)> {
        let end = offset.saturating_add(len);
        let Some(parts) = &self.parts else {
            return vec![(self.data.saturating_add(offset), 0..len as usize)];
        };
        let first = parts.partition_point(|(at, size, _)| at.saturating_add(*size) <= offset);
        let mut pieces = Vec::new();
        for &(at, size, data) in parts[first..].iter().take_while(|(at, ..)| *at < end) {
            let (from, to) = (at.max(offset), at.saturating_add(size).min(end));
            if from < to {
                pieces.push((data.saturating_add(from - at), (from - offset) as usize..(to - offset) as usize));
            }
        }
        pieces
    }
}

impl Reader {
    /// Reads the bytes of `member` at `offset`: as many as `buf` holds or the file has.
    pub fn read_member(&self, member: &Member, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = member.size.saturating_sub(offset).min(buf.len() as u64);
        let buf = &mut buf[..len as usize];
        if member.parts.is_some() {
            buf.fill(0);
        }
        for (from, range) in member.pieces(offset, len) {
            self.read_of(from, &mut buf[range], member.size)?;
        }
        Ok(len as usize)
    }
}
