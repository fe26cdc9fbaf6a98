//! A tar archive that is written as it is read: headers are made, bytes of blobs are read through. Its size and all
//! offsets are known ahead, so it can be read from anywhere, and twice the same.
//!
//! What it writes is byte for byte what Go's `archive/tar` writes for the same members (`Writer.WriteHeader`, format
//! unspecified): USTAR where everything fits, else a PAX header before it. That is what `ctr images export` uses.

use crate::containerd::Digest;
use crate::error::Result;

/// The unit of a tar archive.
const BLOCK: u64 = 512;

/// Two blocks of zeros end an archive.
const END: u64 = 2 * BLOCK;

/// The longest name that the field of a header takes, and the longest prefix.
const NAME: usize = 100;
const PREFIX: usize = 155;

/// Sizes from here on do not fit eleven octal digits.
const OCTAL_SIZE: u64 = 1 << 33;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path; of a directory with a slash at its end.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
    pub body: Body,
}

/// What a member holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Directory,
    /// Bytes that were made here.
    Text(Vec<u8>),
    /// A blob of so many bytes.
    Blob(Digest, u64),
}

/// Where the bytes of blobs come from.
pub trait Blobs {
    /// Fills `buf` with the bytes of a blob at `offset`, or fails.
    fn read_at(&self, digest: &Digest, offset: u64, buf: &mut [u8]) -> Result<()>;
}

/// An archive of some members, in their order.
#[derive(Debug, PartialEq, Eq)]
pub struct Archive {
    members: Vec<Placed>,
    size: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Placed {
    /// Where its header begins.
    start: u64,
    member: Member,
}

impl Member {
    fn size(&self) -> u64 {
        match &self.body {
            Body::Directory => 0,
            Body::Text(text) => text.len() as u64,
            Body::Blob(_, size) => *size,
        }
    }

    /// Its header, with a PAX header before it where that is needed.
    fn header(&self) -> Vec<u8> {
        let size = self.size();
        let flag = if matches!(self.body, Body::Directory) { b'5' } else { b'0' };
        let split = split(&self.name);
        let mut records = Vec::new();
        if split.is_none() {
            record(&mut records, "path", &self.name);
        }
        if size >= OCTAL_SIZE {
            record(&mut records, "size", &size.to_string());
        }
        let mut header = Vec::with_capacity(BLOCK as usize);
        if !records.is_empty() {
            let (directory, file) = self.name.rsplit_once('/').unwrap_or(("", &self.name));
            let name = [directory, "PaxHeaders.0", file].into_iter().filter(|part| !part.is_empty());
            let name = name.collect::<Vec<_>>().join("/");
            header.extend_from_slice(&block("", &name, 0, records.len() as u64, b'x'));
            header.append(&mut records);
            header.resize(header.len().next_multiple_of(BLOCK as usize), 0);
        }
        let (prefix, name) = split.unwrap_or(("", &self.name));
        // Where a record says the size, Go leaves the field at zero.
        let size = if size < OCTAL_SIZE { size } else { 0 };
        header.extend_from_slice(&block(prefix, name, self.mode, size, flag));
        header
    }
}

/// The prefix and the name that a USTAR header has for a path; none if it does not fit (Go's `splitUSTARPath`).
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME {
        return Some(("", path));
    }
    let at = path.bytes().take(PREFIX + 1).collect::<Vec<u8>>().iter().rposition(|b| *b == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (at > 0 && !name.is_empty() && name.len() <= NAME).then_some((prefix, name))
}

/// Appends a PAX record: its own length in decimal, a space, `key=value` and a newline.
fn record(records: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    records.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

/// One header block.
fn block(prefix: &str, name: &str, mode: u32, size: u64, flag: u8) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(NAME)]);
    put(100, format!("{mode:07o}").as_bytes());
    // Owner and group.
    put(108, b"0000000\x000000000\x00");
    put(124, format!("{size:011o}").as_bytes());
    // 1970, as Go writes a time that was never set; and a checksum of blanks while it is computed.
    put(136, b"00000000000\x00        ");
    put(156, &[flag]);
    put(257, b"ustar\x0000");
    if flag != b'x' {
        // Device numbers: Go writes them into the header of a member, and not into a PAX header.
        put(329, b"0000000\x000000000\x00");
    }
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\x00 ").as_bytes());
    block
}

impl Archive {
    /// An archive of these members.
    pub fn new(members: Vec<Member>) -> Archive {
        let mut at: u64 = 0;
        let place = |member: Member| {
            let start = at;
            let length = (member.header().len() as u64).saturating_add(member.size());
            at = start.saturating_add(length.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX));
            Placed { start, member }
        };
        let members = members.into_iter().map(place).collect();
        Archive { members, size: at.saturating_add(END) }
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its members.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|placed| &placed.member)
    }

    /// `length` bytes at `offset`, fewer only at the end.
    pub fn read_at(&self, blobs: &dyn Blobs, offset: u64, length: usize) -> Result<Vec<u8>> {
        let end = self.size.min(offset.saturating_add(length as u64));
        let mut out = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
        // The last member that begins at or before the offset, and those behind it.
        let first = self.members.partition_point(|placed| placed.start <= offset).saturating_sub(1);
        for Placed { start, member } in self.members[first.min(self.members.len())..].iter() {
            if *start >= end {
                break;
            }
            let header = member.header();
            if let Some((from, to)) = overlap(&mut out, offset, *start, header.len() as u64) {
                to.copy_from_slice(&header[from as usize..][..to.len()]);
            }
            let Some((from, to)) = overlap(&mut out, offset, start + header.len() as u64, member.size()) else {
                continue;
            };
            match &member.body {
                Body::Directory => {}
                Body::Text(text) => to.copy_from_slice(&text[from as usize..][..to.len()]),
                Body::Blob(digest, _) => blobs.read_at(digest, from, to)?,
            }
        }
        Ok(out)
    }
}

/// What of `out`, which begins at `offset`, shows the part of `length` bytes at `start`; and from where in the part.
fn overlap(out: &mut [u8], offset: u64, start: u64, length: u64) -> Option<(u64, &mut [u8])> {
    let from = offset.max(start);
    let to = offset.saturating_add(out.len() as u64).min(start.saturating_add(length));
    (from < to).then(|| (from - start, &mut out[(from - offset) as usize..(to - offset) as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every blob is the low byte of each offset.
    struct Counting;

    impl Blobs for Counting {
        fn read_at(&self, _: &Digest, offset: u64, buf: &mut [u8]) -> Result<()> {
            buf.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = at as u8);
            Ok(())
        }
    }

    fn members() -> Vec<Member> {
        let blob = |name: String, size| Member { name, mode: 0o444, body: Body::Blob(Digest::of(b"x"), size) };
        vec![
            Member { name: "blobs/".into(), mode: 0o755, body: Body::Directory },
            blob("blobs/one".into(), 1000),
            blob("blobs/empty".into(), 0),
            blob(format!("blobs/sha384/{}", "a".repeat(96)), 512),
            blob(format!("blobs/sha512/{}", "b".repeat(128)), 513),
            Member { name: "index.json".into(), mode: 0o644, body: Body::Text(b"{}".to_vec()) },
        ]
    }

    #[test]
    fn tar_finds_what_was_put_in() {
        let archive = Archive::new(members());
        let bytes = archive.read_at(&Counting, 0, 1 << 20).unwrap();
        assert_eq!(bytes.len() as u64, archive.size());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let tar = |args: &[&str]| {
            let done = std::process::Command::new("tar").args(args).arg("-f").arg(file.path()).output().unwrap();
            assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
            done.stdout
        };
        let names: String = members().iter().map(|member| format!("{}\n", member.name)).collect();
        assert_eq!(String::from_utf8(tar(&["-t"])).unwrap(), names);
        let listing = String::from_utf8(tar(&["-tv", "--numeric-owner"])).unwrap();
        assert!(listing.contains("-r--r--r-- 0/0            1000 "), "{listing}");
        let data = tar(&["-xO", "--wildcards", "blobs/*"]);
        assert_eq!(data.len(), 1000 + 512 + 513);
        assert_eq!(data[1512..1515], [0, 1, 2]);
    }

    #[test]
    fn every_range_is_that_of_the_whole() {
        let archive = Archive::new(members());
        let whole = archive.read_at(&Counting, 0, usize::MAX >> 1).unwrap();
        for start in (0..whole.len() + 600).step_by(61) {
            for length in [0, 1, 511, 513, 3000] {
                let part = archive.read_at(&Counting, start as u64, length).unwrap();
                let (start, end) = (start.min(whole.len()), (start + length).min(whole.len()));
                assert_eq!(part, whole[start..end], "{start} {length}");
            }
        }
    }

    #[test]
    fn what_a_field_cannot_hold_stands_in_a_pax_record() {
        let huge = Member { name: "huge".into(), mode: 0o444, body: Body::Blob(Digest::of(b""), OCTAL_SIZE) };
        assert_eq!(huge.header().len(), 3 * 512);
        assert!(huge.header()[512..].starts_with(b"19 size=8589934592\n"));
        let archive = Archive::new(vec![huge]);
        assert_eq!(archive.size(), 3 * 512 + OCTAL_SIZE + END);
        assert_eq!(archive.read_at(&Counting, archive.size() - END - 1, 3).unwrap(), [255, 0, 0]);
    }

    #[test]
    fn an_empty_archive_is_two_blocks() {
        assert_eq!(Archive::new(Vec::new()).read_at(&Counting, 0, 4096).unwrap(), [0; 1024]);
    }
}
