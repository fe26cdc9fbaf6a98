//! One header block of 512 bytes: its checksum, its dialect and its fields, read as Go's archive/tar reads them
//! (`Reader.readHeader`, `parseNumeric`, `getFormat`).

use super::invalid;
use crate::error::Result;

/// The unit of the format: headers are one block, contents are padded to a block.
pub(super) const BLOCK: usize = 512;

/// The fields of a header before PAX records and GNU long names are merged into them.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub flag: u8,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: (i64, u32),
    pub major: i64,
    pub minor: i64,
    /// The dialect is GNU's; only there does type `S` have a map.
    pub gnu: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Reads a header block that is not all zeros.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Header> {
    let Some(dialect) = dialect(block) else { return Err(invalid()) };
    let mut header = Header {
        name: string(&block[..100]).to_vec(),
        mode: numeric(&block[100..108])?,
        uid: numeric(&block[108..116])?,
        gid: numeric(&block[116..124])?,
        size: numeric(&block[124..136])?,
        mtime: (numeric(&block[136..148])?, 0),
        flag: block[156],
        link: string(&block[157..257]).to_vec(),
        gnu: dialect == Dialect::Gnu,
        ..Header::default()
    };
    if dialect == Dialect::V7 {
        return Ok(header);
    }
    header.major = numeric(&block[329..337])?;
    header.minor = numeric(&block[337..345])?;
    let prefix = match dialect {
        Dialect::Ustar => string(&block[345..500]),
        Dialect::Star => {
            // The times are not shown, but a time that cannot be read refuses the archive.
            numeric(&block[476..488])?;
            numeric(&block[488..500])?;
            string(&block[345..476])
        }
        Dialect::Gnu => gnu_prefix(block),
        Dialect::V7 => b"",
    };
    if !prefix.is_empty() {
        header.name = [prefix, b"/", &header.name].concat();
    }
    Ok(header)
}

/// GNU headers have times where ustar has the prefix. Go once wrote a prefix there: where the times cannot be read
/// and the field is ASCII, it is taken for that (golang.org/issue/12594).
fn gnu_prefix(block: &[u8; BLOCK]) -> &[u8] {
    let readable = |field: &[u8]| field[0] == 0 || numeric(field).is_ok();
    if readable(&block[345..357]) && readable(&block[357..369]) {
        return b"";
    }
    let prefix = string(&block[345..500]);
    if prefix.is_ascii() { prefix } else { b"" }
}

/// The dialect by checksum and magic; `None` where the checksum is wrong.
fn dialect(block: &[u8; BLOCK]) -> Option<Dialect> {
    let sum = octal(&block[148..156]).ok()?;
    // POSIX sums unsigned bytes, Sun's tar summed signed ones; the field itself counts as spaces.
    let field = &block[148..156];
    let (all, high) = sums(block);
    let (own, own_high) = sums(field);
    let unsigned = i64::from(all - own) + 8 * i64::from(b' ');
    if sum != unsigned && sum != unsigned - 256 * i64::from(high - own_high) {
        return None;
    }
    Some(match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Dialect::Star,
        (b"ustar\0", _, _) => Dialect::Ustar,
        (b"ustar ", b" \0", _) => Dialect::Gnu,
        _ => Dialect::V7,
    })
}

/// The sum of some bytes, and how many of them are negative if they are taken for signed ones.
fn sums(bytes: &[u8]) -> (u32, u32) {
    bytes.iter().fold((0, 0), |(sum, high), &b| (sum + u32::from(b), high + u32::from(b >> 7)))
}

/// The bytes up to the first NUL, or all of them.
pub(super) fn string(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal, or in base 256 where the first bit is set (two's complement, big endian).
pub(super) fn numeric(field: &[u8]) -> Result<i64> {
    if field.first().is_none_or(|b| b & 0x80 == 0) {
        return octal(field);
    }
    let invert = if field[0] & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0u64;
    for (i, byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if i == 0 {
            byte &= 0x7f;
        }
        if value >> 56 > 0 {
            return Err(invalid());
        }
        value = value << 8 | u64::from(byte);
    }
    let Ok(value) = i64::try_from(value) else { return Err(invalid()) };
    Ok(if invert == 0 { value } else { !value })
}

/// An octal number between spaces and NULs; nothing is 0.
fn octal(field: &[u8]) -> Result<i64> {
    let pad = |b: &u8| *b == b' ' || *b == 0;
    let Some(start) = field.iter().position(|b| !pad(b)) else { return Ok(0) };
    let end = field.iter().rposition(|b| !pad(b)).map_or(start, |i| i + 1);
    let digits = string(&field[start..end]);
    let mut value = 0u64;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) || value >> 61 != 0 {
            return Err(invalid());
        }
        value = value << 3 | u64::from(digit - b'0');
    }
    Ok(value as i64)
}

/// The types that never have content, whatever their size field says.
pub(super) fn header_only(flag: u8) -> bool {
    (b'1'..=b'6').contains(&flag)
}

/// How many bytes of content follow the header.
pub(super) fn content_size(header: &Header) -> Result<u64> {
    if header_only(header.flag) { Ok(0) } else { u64::try_from(header.size).map_err(|_| invalid()) }
}

/// What fills the last block of a content.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(numeric(b"0000644\0").unwrap(), 0o644);
        assert_eq!(numeric(b"   644 \0").unwrap(), 0o644);
        assert_eq!(numeric(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(numeric(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(numeric(&[0xff; 8]).unwrap(), -1);
        assert!(numeric(b"0000648\0").is_err());
        assert!(numeric(b"12 \x0034\0\0").is_err());
        assert!(numeric(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
