//! A tar archive as it comes in: its members one after the other, from a stream that cannot be rewound.
//!
//! What makes these archives writes USTAR, PAX or GNU headers; each is read as Go's `archive/tar` reads it. A stranger wrote
//! the archive: nothing of it is believed before its checksum, and nothing is kept that is not bounded.

use crate::error::{Error, Kind, Result};
use crate::fail;
use std::io::Read;

const BLOCK: usize = 512;

/// The longest name, and the longest header in front of a member.
const HEADER_BYTES: u64 = 1 << 20;
const NAME_BYTES: usize = 4096;

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    File,
    /// To where its target leads from the top of the archive.
    Symlink(String),
    /// Directories, and what no image is made of.
    Other,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, without `.`, `..` and double slashes.
    pub name: String,
    pub size: u64,
    pub what: Type,
}

/// The archive.
pub struct Tarball<'a> {
    source: &'a mut dyn Read,
    /// What is left of the member, and its padding.
    left: u64,
    padding: u64,
    /// Its end came; what is behind it is nobody's.
    ended: bool,
}

/// What headers in front of a member said of it.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a> Tarball<'a> {
    pub fn new(source: &'a mut dyn Read) -> Tarball<'a> {
        Tarball { source, left: 0, padding: 0, ended: false }
    }

    /// Whether the blocks that end an archive were there.
    pub fn is_whole(&self) -> bool {
        self.ended
    }

    /// The next member; none at the end. What was not read of the last one is passed over.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut said = Said::default();
        loop {
            let Some(block) = self.block()? else { return Ok(None) };
            let header = Header(&block);
            let size = header.size()?;
            match header.kind() {
                b'x' => pax(&self.small(size)?, &mut said)?,
                b'L' => said.name = Some(text(&self.small(size)?)),
                b'K' => said.link = Some(text(&self.small(size)?)),
                // A global header: nothing in it concerns us.
                b'g' => drop(self.small(size)?),
                kind => return self.member(header, kind, size, said).map(Some),
            }
        }
    }

    fn member(&mut self, header: Header, kind: u8, size: u64, said: Said) -> Result<Entry> {
        let size = said.size.unwrap_or(size);
        let name = clean(&said.name.unwrap_or_else(|| header.name()))?;
        // Only files have a body, whatever the header says.
        let is_file = matches!(kind, b'0' | b'\0' | b'7') && !header.name().ends_with(b"/");
        let what = match kind {
            b'2' => {
                let target = said.link.unwrap_or_else(|| header.link());
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Type::Symlink(clean(&[folder.as_bytes(), b"/", &target].concat())?)
            }
            b'S' => return fail!(Unsupported, "{name}: a sparse file in an archive of images"),
            _ if is_file => Type::File,
            _ => Type::Other,
        };
        self.left = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        self.padding = self.left.next_multiple_of(BLOCK as u64) - self.left;
        Ok(Entry { name, size: self.left, what })
    }

    /// Bytes of the member, none at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.take(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(cut_short());
        }
        self.left -= count as u64;
        Ok(count)
    }

    /// All of the member, which must not be longer than `limit`.
    pub fn whole(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        if self.left > limit {
            return fail!(TooLong, "{name}: {} bytes, more than {limit}", self.left);
        }
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The body of a header.
    fn small(&mut self, size: u64) -> Result<Vec<u8>> {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let bytes = self.whole("a header of the archive", HEADER_BYTES)?;
        self.skip()?;
        Ok(bytes)
    }

    fn skip(&mut self) -> Result<()> {
        let mut left = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let mut buffer = [0; 16 << 10];
        while left > 0 {
            crate::wait::check()?;
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.take(&mut buffer[..wanted])? {
                0 => return Err(cut_short()),
                count => left -= count as u64,
            }
        }
        Ok(())
    }

    /// The next header block; none at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let Some(block) = self.raw()? else { return Ok(None) };
        if block.iter().any(|byte| *byte != 0) {
            return Header(&block).check().map(|()| Some(block));
        }
        // Two blocks of zeros are the end; so is one with nothing behind it.
        self.ended = true;
        match self.raw()? {
            Some(block) if block.iter().any(|byte| *byte != 0) => {
                fail!(Corrupt, "the archive goes on behind a block of zeros")
            }
            _ => Ok(None),
        }
    }

    fn raw(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.take(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(cut_short()),
                count => filled += count,
            }
        }
        Ok(Some(block))
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.source.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => crate::wait::check()?,
                // One of ours on its way through somebody else's reader.
                Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                    Some(ours) => return Err(ours.clone()),
                    None if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(cut_short()),
                    None if error.raw_os_error().is_some() => return Err(error.into()),
                    None => {
                        return Err(Error::caused(
                            Kind::Corrupt,
                            format!("the archive cannot be read: {error}"),
                            error,
                        ));
                    }
                },
            }
        }
    }
}

fn cut_short() -> Error {
    Error::new(Kind::Corrupt, "the archive is cut short")
}

/// A header block.
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn check(&self) -> Result<()> {
        let sum = |signed: bool| -> i64 {
            let bytes = self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
            bytes.map(|byte| if signed { i64::from(byte as i8) } else { i64::from(byte) }).sum()
        };
        let said = octal(&self.0[148..156])?;
        match i64::try_from(said).is_ok_and(|said| said == sum(false) || said == sum(true)) {
            true => Ok(()),
            false => fail!(Corrupt, "this is no tar archive, or a damaged one: a header's checksum is wrong"),
        }
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn size(&self) -> Result<u64> {
        let size = octal(&self.0[124..136])?;
        match size <= i64::MAX as u64 / 2 {
            true => Ok(size),
            false => fail!(Corrupt, "a member of {size} bytes"),
        }
    }

    fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // Only in a USTAR header is this field a prefix.
        match &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            true => [&prefix[..], b"/", &name].concat(),
            false => name,
        }
    }

    fn link(&self) -> Vec<u8> {
        text(&self.0[157..257])
    }
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// A number in octal digits, or in base 256.
fn octal(field: &[u8]) -> Result<u64> {
    let bad = || Error::new(Kind::Corrupt, "a header with a number in it that is none");
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let mut value = u64::from(first & 0x3f);
        for byte in rest {
            value = value.checked_mul(256).and_then(|v| v.checked_add(u64::from(*byte))).ok_or_else(bad)?;
        }
        return if first & 0x40 == 0 { Ok(value) } else { Err(bad()) };
    }
    let digits: Vec<u8> = field.iter().copied().filter(|byte| *byte != 0 && *byte != b' ').collect();
    let digits = std::str::from_utf8(&digits).map_err(|_| bad())?;
    if digits.is_empty() { Ok(0) } else { u64::from_str_radix(digits, 8).map_err(|_| bad()) }
}

/// The records of a PAX header: `length key=value\n`.
fn pax(mut bytes: &[u8], said: &mut Said) -> Result<()> {
    let bad = || Error::new(Kind::Corrupt, "a PAX header that is none");
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|n| n.parse::<usize>().ok()).ok_or_else(bad)?;
        let record = bytes.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => said.name = Some(value.to_vec()),
            b"linkpath" => said.link = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|n| n.parse::<u64>().ok()).ok_or_else(bad)?;
                said.size = Some(size).filter(|s| *s <= i64::MAX as u64 / 2);
            }
            _ if key.starts_with(b"GNU.sparse.") => return fail!(Unsupported, "a sparse file in an archive of images"),
            _ => {}
        }
    }
    Ok(())
}

/// A path without detours. One that leads out of the archive is refused.
fn clean(path: &[u8]) -> Result<String> {
    let Ok(path) = std::str::from_utf8(path) else {
        return fail!(Corrupt, "{:?}: a name that is not UTF-8", String::from_utf8_lossy(path));
    };
    if path.len() > NAME_BYTES {
        return fail!(Corrupt, "a name of {} bytes", path.len());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return fail!(Corrupt, "{path:?} leads out of the archive"),
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Result<Vec<(String, u64, Type)>> {
        let mut source = bytes;
        let mut tar = Tarball::new(&mut source);
        let mut all = Vec::new();
        while let Some(entry) = tar.next()? {
            all.push((entry.name, entry.size, entry.what));
        }
        Ok(all)
    }

    fn made(flags: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {} && mkdir d && echo hello >d/a && ln -s ../d/a d/b && n=$(printf %090d 1) && l=d/$n/$n && mkdir -p $l && echo x >$l/y && \
             tar {flags} -cf - d",
            dir.path().display()
        );
        let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    #[test]
    fn what_tar_writes_is_read() {
        for flags in ["--format=gnu", "--format=pax", "--format=ustar"] {
            let bytes = made(flags);
            let all = names(&bytes).unwrap();
            let find =
                |name: &str| all.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("{flags}: {name}: {all:?}"));
            assert_eq!(find("d/a").1, 6);
            assert_eq!(find("d/b").2, Type::Symlink("d/a".into()));
            assert_eq!(find(&format!("d/{0:090}/{0:090}/y", 1)).1, 2);
            for cut in [100, 512, 700, 1024, bytes.len() / 2] {
                // It ends, with an error or, between two members, without.
                let _ = names(&bytes[..cut]);
            }
            assert!(names(&bytes[..600]).is_err() || names(&bytes[..600]).unwrap().len() < all.len());
        }
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        assert_eq!(names(&[1; 4096]).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(names(&[0; 1024]).unwrap(), []);
        let mut bytes = made("--format=gnu");
        bytes[0] ^= 1;
        assert_eq!(names(&bytes).unwrap_err().kind(), Kind::Corrupt);
        assert!(clean(b"../x").is_err() && clean(b"a/../../x").is_err());
        assert_eq!(clean(b"./a//b/../c").unwrap(), "a/c");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_run_on(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4096), at in 0usize..2000) {
            let mut mixed = made_once().to_vec();
            for (n, byte) in bytes.iter().enumerate().take(40) {
                if let Some(slot) = mixed.get_mut(at + n) {
                    *slot = *byte;
                }
            }
            let _ = names(&mixed);
            let _ = names(&bytes);
        }
    }

    fn made_once() -> &'static [u8] {
        static MADE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        MADE.get_or_init(|| made("--format=pax"))
    }
}
