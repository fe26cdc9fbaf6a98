//! PAX extended headers: records of `length key=value`, as Go's archive/tar takes them (`parsePAX`, `mergePAX`,
//! `parsePAXTime`).

use super::header::Header;
use super::invalid;
use crate::error::Result;
use std::collections::HashMap;

/// The records that mean something here, undecoded: Go looks at a value only when it merges the header into a member,
/// so a bad number in a header that another one replaces does no harm. Empty means absent.
#[derive(Debug, Default)]
pub(super) struct Pax {
    path: Vec<u8>,
    link: Vec<u8>,
    size: Vec<u8>,
    uid: Vec<u8>,
    gid: Vec<u8>,
    mtime: Vec<u8>,
    atime: Vec<u8>,
    ctime: Vec<u8>,
    pub sparse: SparseKeys,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// `GNU.sparse.*`.
#[derive(Debug, Default)]
pub(super) struct SparseKeys {
    pub major: Vec<u8>,
    pub minor: Vec<u8>,
    pub name: Vec<u8>,
    pub size: Vec<u8>,
    pub real_size: Vec<u8>,
    pub blocks: Vec<u8>,
    pub map: Vec<u8>,
}

impl Pax {
    /// Reads the content of an `x` or `g` member.
    pub(super) fn parse(mut data: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        let mut map: Vec<&[u8]> = Vec::new();
        let mut seen: HashMap<&[u8], usize> = HashMap::new();
        while !data.is_empty() {
            let (key, value, rest) = record(data)?;
            data = rest;
            match key {
                // Sparse format 0.0 repeats these two keys in turn; together they are format 0.1's map.
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    if map.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                        return Err(invalid());
                    }
                    map.push(value);
                }
                _ => match key.strip_prefix(b"SCHILY.xattr.") {
                    // The last of two records of one name wins.
                    Some(name) => match seen.get(name) {
                        Some(&at) => pax.xattrs[at].1 = value.to_vec(),
                        None => {
                            seen.insert(name, pax.xattrs.len());
                            pax.xattrs.push((name.to_vec(), value.to_vec()));
                        }
                    },
                    None => {
                        if let Some(slot) = pax.slot(key) {
                            *slot = value.to_vec();
                        }
                    }
                },
            }
        }
        if !map.is_empty() {
            pax.sparse.map = map.join(&b","[..]);
        }
        Ok(pax)
    }

    fn slot(&mut self, key: &[u8]) -> Option<&mut Vec<u8>> {
        Some(match key {
            b"path" => &mut self.path,
            b"linkpath" => &mut self.link,
            b"size" => &mut self.size,
            b"uid" => &mut self.uid,
            b"gid" => &mut self.gid,
            b"mtime" => &mut self.mtime,
            b"atime" => &mut self.atime,
            b"ctime" => &mut self.ctime,
            b"GNU.sparse.major" => &mut self.sparse.major,
            b"GNU.sparse.minor" => &mut self.sparse.minor,
            b"GNU.sparse.name" => &mut self.sparse.name,
            b"GNU.sparse.size" => &mut self.sparse.size,
            b"GNU.sparse.realsize" => &mut self.sparse.real_size,
            b"GNU.sparse.numblocks" => &mut self.sparse.blocks,
            b"GNU.sparse.map" => &mut self.sparse.map,
            _ => return None,
        })
    }

    /// Overwrites the fields of `header` that these records name.
    pub(super) fn merge(&self, header: &mut Header) -> Result<()> {
        if !self.path.is_empty() {
            header.name.clone_from(&self.path);
        }
        if !self.link.is_empty() {
            header.link.clone_from(&self.link);
        }
        for (value, field) in
            [(&self.size, &mut header.size), (&self.uid, &mut header.uid), (&self.gid, &mut header.gid)]
        {
            if !value.is_empty() {
                *field = decimal(value)?;
            }
        }
        for value in [&self.atime, &self.ctime] {
            if !value.is_empty() {
                time(value)?;
            }
        }
        if !self.mtime.is_empty() {
            header.mtime = time(&self.mtime)?;
        }
        Ok(())
    }
}

/// The first record of `data`: its key, its value, and what follows it.
fn record(data: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let Some(space) = data.iter().position(|&b| b == b' ') else { return Err(invalid()) };
    let length = usize::try_from(decimal(&data[..space])?).map_err(|_| invalid())?;
    if length < 5 || length > data.len() || length <= space + 1 || data[length - 1] != b'\n' {
        return Err(invalid());
    }
    let body = &data[space + 1..length - 1];
    let Some(equals) = body.iter().position(|&b| b == b'=') else { return Err(invalid()) };
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    let checked = if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") { value } else { key };
    if checked.contains(&0) {
        return Err(invalid());
    }
    Ok((key, value, &data[length..]))
}

/// A decimal number as Go's `strconv.ParseInt(s, 10, 64)` takes it: with an optional sign, with nothing around it.
pub(super) fn decimal(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text).ok().and_then(|s| s.parse().ok()).ok_or_else(invalid)
}

/// Seconds with a fraction of which nine digits count. A time before 1970 with a fraction has the fraction subtracted.
fn time(text: &[u8]) -> Result<(i64, u32)> {
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |d| d - b'0')));
    if whole.starts_with(b"-") && nanos > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_nine_digits() {
        assert_eq!(time(b"1700000000.1234567899").unwrap(), (1_700_000_000, 123_456_789));
        assert_eq!(time(b"5.").unwrap(), (5, 0));
        assert_eq!(time(b"-0.5").unwrap(), (-1, 500_000_000));
        assert!(time(b"abc").is_err());
        assert!(time(b"1.5.5").is_err());
        assert!(time(b".5").is_err());
    }

    #[test]
    fn a_record_says_its_length_exactly() {
        assert_eq!(record(b"9 path=a\n").unwrap(), (&b"path"[..], &b"a"[..], &b""[..]));
        for bad in [&b"9 path=a "[..], b"4 =\n", b"9path=ab\n", b"7 path\n", b"0000000005 a=\n", b" a=\n"] {
            assert!(record(bad).is_err(), "{bad:?}");
        }
    }
}
