//! How entries are stored: a row of fixed length for what every entry has, names that share what they begin with, and
//! a record on the side for what few have (link targets, devices, extended attributes, sparse maps).

use super::super::decode::spill::Spill;
use super::format::Fields;
use crate::error::Result;
use crate::fail;
use crate::layers::Entry;

/// The length of a row: data, size, mtime (seconds, nanoseconds), mode, uid, gid, where the rest of the name lies, its
/// length, what it shares with the name before it, flag, a zero, and where the record on the side lies plus one.
pub(super) const ROW: usize = 8 + 8 + 8 + 4 + 4 + 4 + 4 + 4 + 4 + 2 + 1 + 1 + 4;

/// Every so many entries a name is stored whole, so that one entry is read without reading all before it.
const WHOLE: u64 = 16;

/// A pool holds at most so many bytes.
const POOL: u64 = 1 << 30;

/// Turns entries into rows and pools.
pub(super) struct Writer {
    pub rows: Spill,
    pub names: Spill,
    pub extras: Spill,
    pub count: u64,
    name: Vec<u8>,
    /// The last record on the side and where it lies: neighbours often have the same.
    extra: (Vec<u8>, u32),
}

impl Writer {
    pub(super) fn new(scratch: Option<&std::path::Path>) -> Writer {
        let spill = || Spill::new(scratch);
        Writer { rows: spill(), names: spill(), extras: spill(), count: 0, name: Vec::new(), extra: Default::default() }
    }

    pub(super) fn push(&mut self, entry: Entry) -> Result<()> {
        let whole = self.count.is_multiple_of(WHOLE);
        let alike = entry.name.iter().zip(&self.name).take_while(|(a, b)| a == b).count();
        let shared = if whole { 0 } else { alike.min(u16::MAX.into()) };
        let rest = &entry.name[shared..];
        let (name, extra) = (place(&self.names, rest.len())?, self.extra(&entry)?);
        self.names.push(rest)?;
        let mut row = Vec::with_capacity(ROW);
        for number in [entry.data, entry.size, entry.mtime.0 as u64] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        for number in [entry.mtime.1, entry.mode, entry.uid, entry.gid, name, rest.len() as u32] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row.extend_from_slice(&(shared as u16).to_le_bytes());
        row.extend_from_slice(&[entry.flag, 0]);
        row.extend_from_slice(&extra.to_le_bytes());
        self.rows.push(&row)?;
        self.count += 1;
        self.name = entry.name;
        Ok(())
    }

    /// Where the record on the side of `entry` lies, plus one; 0 if it needs none.
    fn extra(&mut self, entry: &Entry) -> Result<u32> {
        let none = entry.link.is_empty() && entry.xattrs.is_empty() && entry.sparse.is_empty();
        if none && entry.major == 0 && entry.minor == 0 {
            return Ok(0);
        }
        let mut record = Vec::new();
        let counts = [entry.link.len(), entry.major as usize, entry.minor as usize];
        for number in counts.into_iter().chain([entry.xattrs.len(), entry.sparse.len()]) {
            record.extend_from_slice(&(number as u32).to_le_bytes());
        }
        record.extend_from_slice(&entry.link);
        for (key, value) in &entry.xattrs {
            record.extend_from_slice(&(key.len() as u32).to_le_bytes());
            record.extend_from_slice(&(value.len() as u32).to_le_bytes());
            record.extend_from_slice(key);
            record.extend_from_slice(value);
        }
        for (offset, len) in &entry.sparse {
            record.extend_from_slice(&offset.to_le_bytes());
            record.extend_from_slice(&len.to_le_bytes());
        }
        if record != self.extra.0 || self.extra.1 == 0 {
            let at = place(&self.extras, record.len())? + 1;
            self.extras.push(&record)?;
            self.extra = (record, at);
        }
        Ok(self.extra.1)
    }
}

/// Where the next `len` bytes of a pool will lie.
fn place(pool: &Spill, len: usize) -> Result<u32> {
    match pool.len() + (len as u64) <= POOL {
        true => Ok(pool.len() as u32),
        false => fail!(Corrupt, "the names and attributes of the layer take more than {POOL} bytes"),
    }
}

/// The sections that entries are read from. Nothing in them is trusted.
#[derive(Clone, Copy)]
pub(super) struct Pools<'a> {
    pub rows: &'a [u8],
    pub names: &'a [u8],
    pub extras: &'a [u8],
}

/// The part of a row that tells the name.
struct Name {
    at: u32,
    len: u32,
    shared: u16,
}

impl Pools<'_> {
    /// The entry of this number; its name is put together from the whole name before it.
    pub(super) fn entry(&self, n: usize) -> Result<Entry> {
        let mut name = Vec::new();
        for before in (n - n % WHOLE as usize)..n {
            let (row, _) = self.row(before)?;
            self.name(&row, &mut name)?;
        }
        self.next(n, &mut name)
    }

    /// The entry of this number, where `name` is the name of the entry before it, and then this one's.
    pub(super) fn next(&self, n: usize, name: &mut Vec<u8>) -> Result<Entry> {
        let (part, mut entry) = self.row(n)?;
        self.name(&part, name)?;
        entry.name.clone_from(name);
        Ok(entry)
    }

    fn row(&self, n: usize) -> Result<(Name, Entry)> {
        let row = n.checked_mul(ROW).and_then(|at| self.rows.get(at..at.checked_add(ROW)?));
        let Some(row) = row else { return fail!(Corrupt, "an index has no entry {n}") };
        let mut at = Fields(row);
        let (data, size, seconds) = (at.number(), at.number(), at.number() as i64);
        let mtime = (seconds, at.word());
        let (mode, uid, gid) = (at.word(), at.word(), at.word());
        let (name, len, shared) = (at.word(), at.word(), u16::from_le_bytes(at.take()));
        let [flag, _] = at.take::<2>();
        let mut entry = Entry { flag, mode, uid, gid, size, mtime, data, ..Entry::default() };
        let extra = at.word();
        if extra > 0 && self.extra(extra as usize - 1, &mut entry).is_none() {
            return fail!(Corrupt, "an index with a damaged entry");
        }
        Ok((Name { at: name, len, shared }, entry))
    }

    fn name(&self, part: &Name, name: &mut Vec<u8>) -> Result<()> {
        let from = part.at as usize;
        match self.names.get(from..from.saturating_add(part.len as usize)) {
            Some(rest) if part.shared as usize <= name.len() => {
                name.truncate(part.shared.into());
                name.extend_from_slice(rest);
                Ok(())
            }
            _ => fail!(Corrupt, "an index with a damaged name"),
        }
    }

    /// Reads the record at `at` into `entry`. What is allocated is at most what the record holds.
    fn extra(&self, at: usize, entry: &mut Entry) -> Option<()> {
        let mut fields = Fields(self.extras.get(at..)?.get(..20).and(self.extras.get(at..))?);
        let link = fields.word() as usize;
        (entry.major, entry.minor) = (fields.word(), fields.word());
        let (xattrs, sparse) = (fields.word(), fields.word());
        let mut rest = fields.0;
        let mut bytes = |len: usize| {
            let (taken, left) = rest.split_at_checked(len)?;
            rest = left;
            Some(taken)
        };
        entry.link = bytes(link)?.to_vec();
        for _ in 0..xattrs {
            let mut lengths = Fields(bytes(8)?);
            let (key, value) = (lengths.word() as usize, lengths.word() as usize);
            entry.xattrs.push((bytes(key)?.to_vec(), bytes(value)?.to_vec()));
        }
        let map = bytes((sparse as usize).checked_mul(16)?)?;
        entry.sparse = map
            .chunks_exact(16)
            .map(|pair| {
                let mut pair = Fields(pair);
                (pair.number(), pair.number())
            })
            .collect();
        Some(())
    }
}
