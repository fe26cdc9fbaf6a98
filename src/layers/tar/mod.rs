//! A push parser for tar archives that follows Go's archive/tar, because that is what containerd unpacks with
//! (LAYERS.md, section 4): it accepts and refuses the same archives and finds the same members in them.
//!
//! Bytes are pushed in pieces of any size, as a decoder produces them; contents are passed over and only their place
//! in the stream is kept. Every allocation is bounded by [`Limits`].

mod header;
mod limits;
mod pax;
mod sparse;

use super::Entry;
use crate::error::{Error, Kind, Result};
use header::{BLOCK, Header, content_size, header_only, padding};
pub use limits::Limits;
use pax::Pax;

/// What is known of a member while its sparse map is still being read.
#[derive(Debug)]
struct Member {
    header: Header,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of content in the archive that were not read yet, and the padding after them.
    left: u64,
    pad: u64,
}

#[derive(Debug)]
enum State {
    /// A header block comes next.
    Header,
    /// One block of zeros came; a second one ends the archive.
    Zero,
    /// The content of an `x`, `g`, `L` or `K` member.
    Special {
        header: Header,
        left: u64,
        pad: u64,
        data: Vec<u8>,
    },
    /// The sparse map at the head of a member's content.
    ContentMap {
        member: Box<Member>,
        map: sparse::ContentMap,
    },
    /// The extension blocks of an old GNU sparse header.
    OldMap {
        member: Box<Member>,
        map: sparse::Map,
    },
    /// Content and padding that nobody needs to see.
    Skip {
        left: u64,
        pad: u64,
    },
    /// After the end of the archive: anything may follow.
    End,
    Failed(Error),
}

/// The parser. Feed it with [`Parser::push`], then call [`Parser::finish`].
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    /// How many bytes of the stream were taken.
    position: u64,
    /// A block that came in pieces.
    block: Box<[u8; BLOCK]>,
    filled: usize,
    pax: Option<Pax>,
    long_name: Vec<u8>,
    long_link: Vec<u8>,
    entries: usize,
    bytes: usize,
}

impl Default for Parser {
    fn default() -> Parser {
        Parser::new()
    }
}

impl Parser {
    /// A parser with the default limits.
    pub fn new() -> Parser {
        Parser::with_limits(Limits::default())
    }

    /// A parser with limits of the caller's choice.
    pub fn with_limits(limits: Limits) -> Parser {
        Parser {
            limits,
            state: State::Header,
            position: 0,
            block: Box::new([0; BLOCK]),
            filled: 0,
            pax: None,
            long_name: Vec::new(),
            long_link: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Takes the next bytes of the uncompressed archive and hands each member to `sink` as soon as its headers are
    /// complete. After the first failure, its own or `sink`'s, it answers with that failure again.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            match self.step(bytes, sink) {
                Ok(taken) => {
                    self.position += taken as u64;
                    bytes = &bytes[taken..];
                }
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Tells that the stream has ended. Go takes an end between two members, in the padding, or after the first block
    /// of zeros for the end of the archive.
    pub fn finish(&mut self) -> Result<()> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::End | State::Skip { left: 0, .. } => Ok(()),
            State::Header | State::Zero if self.filled == 0 => Ok(()),
            _ => Err(unexpected_end()),
        }
    }

    /// How many members were found.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Takes some bytes of `bytes`, at least one, and says how many.
    fn step(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<usize> {
        match &mut self.state {
            State::Failed(error) => Err(error.clone()),
            State::End => Ok(bytes.len()),
            State::Skip { left, pad } => {
                let taken = (*left + *pad).min(bytes.len() as u64);
                let content = taken.min(*left);
                *left -= content;
                *pad -= taken - content;
                if *left + *pad == 0 {
                    self.state = State::Header;
                }
                Ok(taken as usize)
            }
            State::Special { left, data, .. } => {
                let taken = (*left).min(bytes.len() as u64) as usize;
                data.extend_from_slice(&bytes[..taken]);
                *left -= taken as u64;
                if *left == 0 {
                    self.special(taken, sink)?;
                }
                Ok(taken)
            }
            _ => {
                let taken = (BLOCK - self.filled).min(bytes.len());
                self.block[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                self.filled += taken;
                if self.filled == BLOCK {
                    self.filled = 0;
                    self.take_block(self.position + taken as u64, sink)?;
                }
                Ok(taken)
            }
        }
    }

    /// Uses a complete block, after which the stream stands at `position`.
    fn take_block(&mut self, position: u64, sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Zero if *self.block == [0; BLOCK] => self.state = State::End,
            State::Zero => return Err(invalid()),
            State::ContentMap { mut member, mut map } => {
                member.left -= BLOCK as u64;
                match map.push(&self.block, self.limits.header)? {
                    Some(map) => self.emit(*member, Some(&map), position, sink)?,
                    None if member.left < BLOCK as u64 => return Err(unexpected_end()),
                    None => self.state = State::ContentMap { member, map },
                }
            }
            State::OldMap { member, mut map } => {
                if sparse::old_entries(&self.block, true, &mut map)? {
                    if map.len() * 24 > self.limits.header {
                        return Err(too_long());
                    }
                    self.state = State::OldMap { member, map };
                } else {
                    self.emit(*member, Some(&map), position, sink)?;
                }
            }
            _ if *self.block == [0; BLOCK] => self.state = State::Zero,
            _ => self.header(position, sink)?,
        }
        Ok(())
    }

    /// Reads a header block.
    fn header(&mut self, position: u64, sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let header = header::parse(&self.block)?;
        if !matches!(header.flag, b'x' | b'g' | b'L' | b'K') {
            return self.member(header, position, sink);
        }
        let left = u64::try_from(header.size).map_err(|_| invalid())?;
        if left > self.limits.header as u64 {
            return Err(too_long());
        }
        self.state = State::Special { header, left, pad: padding(left), data: Vec::new() };
        if left == 0 { self.special(0, sink) } else { Ok(()) }
    }

    /// Uses the complete content of a member that only describes the next one.
    fn special(&mut self, taken: usize, sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let position = self.position + taken as u64;
        let State::Special { mut header, pad, data, .. } = std::mem::replace(&mut self.state, State::Header) else {
            return Ok(());
        };
        self.skip(0, pad);
        match header.flag {
            b'x' => self.pax = Some(Pax::parse(&data)?),
            b'L' => self.long_name = header::string(&data).to_vec(),
            b'K' => self.long_link = header::string(&data).to_vec(),
            _ => {
                // Go hands a global header out as a member and forgets whatever was waiting for the next file.
                Pax::parse(&data)?.merge(&mut header)?;
                self.forget();
                let entry = Entry { name: header.name, flag: b'g', data: position, ..Entry::default() };
                self.deliver(entry, sink)?;
            }
        }
        Ok(())
    }

    /// Merges what came before into the header of a real member.
    fn member(&mut self, mut header: Header, position: u64, sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        // Go looks at the size before it merges as well, and refuses a negative one even if PAX would replace it.
        content_size(&header)?;
        let mut pax = self.pax.take().unwrap_or_default();
        pax.merge(&mut header)?;
        if !self.long_name.is_empty() {
            header.name = std::mem::take(&mut self.long_name);
        }
        if !self.long_link.is_empty() {
            header.link = std::mem::take(&mut self.long_link);
        }
        self.forget();
        if header.flag == 0 {
            // Archives from before POSIX tell a directory by the slash alone.
            header.flag = if header.name.ends_with(b"/") { b'5' } else { b'0' };
        }
        let left = content_size(&header)?;
        let xattrs = std::mem::take(&mut pax.xattrs);
        let mut member = Member { header, xattrs, left, pad: padding(left) };
        if member.header.flag == b'S' {
            return self.old_sparse(member, position, sink);
        }
        let place = pax.sparse.place();
        if matches!(place, sparse::Place::None) {
            return self.emit(member, None, position, sink);
        }
        if !pax.sparse.name.is_empty() {
            member.header.name.clone_from(&pax.sparse.name);
        }
        if let Some(size) = pax.sparse.file_size()? {
            member.header.size = size;
        }
        if matches!(place, sparse::Place::Records) {
            let map = pax.sparse.records_map()?;
            return self.emit(member, Some(&map), position, sink);
        }
        if left < BLOCK as u64 {
            return Err(unexpected_end());
        }
        self.state = State::ContentMap { member: Box::new(member), map: sparse::ContentMap::default() };
        Ok(())
    }

    /// The old GNU format: the map begins in the header block itself.
    fn old_sparse(
        &mut self,
        mut member: Member,
        position: u64,
        sink: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        if !member.header.gnu {
            return Err(invalid());
        }
        member.header.size = header::numeric(&self.block[483..495])?;
        let mut map = sparse::Map::new();
        if sparse::old_entries(&self.block, false, &mut map)? {
            self.state = State::OldMap { member: Box::new(member), map };
            return Ok(());
        }
        self.emit(member, Some(&map), position, sink)
    }

    /// Hands a member out whose content begins at `position`.
    fn emit(
        &mut self,
        member: Member,
        map: Option<&sparse::Map>,
        position: u64,
        sink: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        let Member { header, xattrs, left, pad } = member;
        let mut parts = Vec::new();
        if let Some(map) = map {
            if header_only(header.flag) {
                return Err(invalid());
            }
            parts = sparse::validate(map, header.size)?;
            // Go says so when the content is read; containerd reads the content of every regular file.
            let held: u64 = parts.iter().map(|part| part.1).sum();
            if header.flag == b'0' && held != left {
                let what = if held > left { "references non-existent data" } else { "contains unreferenced data" };
                return crate::fail!(Corrupt, "archive/tar: sparse file {what}");
            }
        }
        self.skip(left, pad);
        let entry = Entry {
            name: header.name,
            flag: header.flag,
            mode: header.mode as u32,
            // containerd gives these to system calls that take 32 bits.
            uid: header.uid as u32,
            gid: header.gid as u32,
            size: if header_only(header.flag) { 0 } else { header.size as u64 },
            mtime: bound(header.mtime),
            link: header.link,
            major: header.major as u32,
            minor: header.minor as u32,
            xattrs,
            data: position,
            sparse: parts,
        };
        self.deliver(entry, sink)
    }

    /// Counts an entry against the limits and passes it on.
    fn deliver(&mut self, entry: Entry, sink: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        // Only GNU.sparse.name can bring a NUL this far; the system call that would make such a file refuses it.
        if entry.name.contains(&0) {
            return Err(invalid());
        }
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.entries += 1;
        self.bytes += entry.name.len() + entry.link.len() + xattrs + 16 * entry.sparse.len();
        if self.entries > self.limits.entries {
            return crate::fail!(TooLong, "the archive has more than {} members", self.limits.entries);
        }
        if self.bytes > self.limits.bytes {
            return crate::fail!(TooLong, "the archive's names and xattrs exceed {} bytes", self.limits.bytes);
        }
        sink(entry)
    }

    fn skip(&mut self, left: u64, pad: u64) {
        self.state = if left + pad == 0 { State::Header } else { State::Skip { left, pad } };
    }

    fn forget(&mut self) {
        self.pax = None;
        self.long_name.clear();
        self.long_link.clear();
    }
}

/// containerd's `boundTime`: a time that 63 bits of nanoseconds since 1970 cannot hold is 0.
fn bound(time: (i64, u32)) -> (i64, u32) {
    if time.0 < 0 || time > (9_223_372_036, 854_775_807) { (0, 0) } else { time }
}

fn invalid() -> Error {
    Error::new(Kind::Corrupt, "archive/tar: invalid tar header")
}

fn too_long() -> Error {
    Error::new(Kind::Corrupt, "archive/tar: header field too long")
}

fn unexpected_end() -> Error {
    Error::new(Kind::Corrupt, "unexpected EOF")
}
