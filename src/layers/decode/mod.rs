//! From the bytes of a layer blob to the bytes of its tar archive: in one pass ([`pass`]), or from a checkpoint
//! ([`live`]).
//!
//! What is accepted is what containerd accepts: the compression is found by its magic where the media type allows any,
//! several gzip members or zstd frames follow one another, and whatever follows the last of them is damage.

pub mod digest;
mod gzip;
mod inflate;
pub mod live;
pub mod marks;
pub mod media;
pub mod pass;
mod pipe;
pub mod spill;
mod zstd;

pub use self::digest::Digest;
pub use self::inflate::crc32;
pub use self::marks::{Checkpoint, Marks};
pub use self::pass::{Decoded, Hooks, Limits, pass};

use crate::error::Result;

/// How a blob is compressed, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// The blob is the archive.
    Plain,
    /// One gzip member or more.
    Gzip,
    /// One zstd frame or more, with skippable ones anywhere.
    Zstd,
}

impl Compression {
    /// The compression that `head`, the first bytes of a blob (eight are enough), tells. The same magic as
    /// containerd's: gzip is three bytes, a skippable frame in front is zstd, everything else is a plain archive.
    pub fn sniff(head: &[u8]) -> Compression {
        let magic = head.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
        if head.starts_with(&[0x1f, 0x8b, 0x08]) {
            Compression::Gzip
        } else if magic == Some(0xfd2f_b528) || (head.len() >= 8 && magic.map(|m| m & !0xf) == Some(0x184d_2a50)) {
            Compression::Zstd
        } else {
            Compression::Plain
        }
    }

    /// Its number in an index file.
    pub(super) fn code(self) -> u8 {
        match self {
            Compression::Plain => 0,
            Compression::Gzip => 1,
            Compression::Zstd => 2,
        }
    }

    /// The compression of a number in an index file.
    pub(super) fn from_code(code: u8) -> Option<Compression> {
        [Compression::Plain, Compression::Gzip, Compression::Zstd].into_iter().find(|c| c.code() == code)
    }
}

/// What one step of a decoder took and gave.
struct Step {
    consumed: usize,
    produced: usize,
}

/// A decoder that sees the whole stream once, from its beginning.
trait Decoder {
    /// Decodes from `input` into `out` and marks places to restart at. A step that neither takes nor gives wants
    /// more input.
    fn step(&mut self, input: &[u8], out: &mut [u8], marks: &mut Marks) -> Result<Step>;
    /// The input is over: fails if the stream is not.
    fn end(&self) -> Result<()>;
}

#[cfg(test)]
pub(super) mod tests;
