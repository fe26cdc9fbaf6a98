//! The one place that calls zlib: inflate that can stop at block boundaries and begin in the middle.

use crate::error::{Error, Kind, Result};
use crate::fail;
use libz_rs_sys as z;
use std::ffi::c_int;

/// How far back inflate can look.
pub(super) const WINDOW: usize = 32 << 10;

/// The wrapping around the deflate stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrap {
    /// Header, CRC-32 and length are read and checked.
    Gzip,
    /// Nothing around it: what a checkpoint inside a member continues with.
    Raw,
}

impl Wrap {
    fn window_bits(self) -> c_int {
        match self {
            Wrap::Gzip => 16 + 15,
            Wrap::Raw => -15,
        }
    }
}

/// What one call did.
pub(super) struct Ran {
    pub consumed: usize,
    pub produced: usize,
    /// The stream ended.
    pub end: bool,
    /// It stands at a block boundary that is not the last: so many bits of the last byte taken are not yet used.
    pub boundary: Option<u8>,
}

/// An inflate stream.
pub(super) struct Inflate(Box<z::z_stream>);

// SAFETY: the stream owns its state through an allocator without thread affinity, nothing else points into it, and
// every call takes `&mut self`; the input and output pointers are only meaningful during a call.
unsafe impl Send for Inflate {}

impl Inflate {
    pub(super) fn new(wrap: Wrap) -> Result<Inflate> {
        let mut stream = Box::<z::z_stream>::default();
        // SAFETY: `default` sets the allocator functions; the version is a C string and the size is the struct's.
        let code = unsafe {
            z::inflateInit2_(&mut *stream, wrap.window_bits(), z::zlibVersion(), size_of::<z::z_stream>() as c_int)
        };
        match code {
            z::Z_OK => Ok(Inflate(stream)),
            _ => fail!(Io, "no memory for a decoder"),
        }
    }

    /// Begins a new stream, with nothing kept of the old one but its memory.
    pub(super) fn reset(&mut self, wrap: Wrap) -> Result<()> {
        // SAFETY: the stream was initialised by `new`.
        match unsafe { z::inflateReset2(&mut *self.0, wrap.window_bits()) } {
            z::Z_OK => Ok(()),
            code => Err(unexpected(code)),
        }
    }

    /// Continues in the middle of a byte and of a stream: with the upper `bits` of `byte` still to be used, and
    /// `window` as what was last put out. Only right after `new` or `reset` of a raw stream.
    pub(super) fn resume(&mut self, bits: u8, byte: u8, window: &[u8]) -> Result<()> {
        let bits = bits.min(7);
        let value = c_int::from(byte) >> (8 - bits);
        // SAFETY: the stream was initialised by `new`.
        let primed = bits == 0 || unsafe { z::inflatePrime(&mut *self.0, bits.into(), value) } == z::Z_OK;
        let window = &window[window.len().saturating_sub(WINDOW)..];
        // SAFETY: as above; the window is readable for its length, which is at most 32 KiB.
        let set = window.is_empty()
            || unsafe { z::inflateSetDictionary(&mut *self.0, window.as_ptr(), window.len() as u32) } == z::Z_OK;
        if primed && set { Ok(()) } else { fail!(Corrupt, "a checkpoint that the decoder does not take") }
    }

    /// Inflates from `input` to `out`; with `stop` it returns at the next block boundary.
    pub(super) fn run(&mut self, input: &[u8], out: &mut [u8], stop: bool) -> Result<Ran> {
        let (avail_in, avail_out) = (clip(input.len()), clip(out.len()));
        self.0.next_in = input.as_ptr();
        self.0.avail_in = avail_in;
        self.0.next_out = out.as_mut_ptr();
        self.0.avail_out = avail_out;
        let flush = if stop { z::Z_BLOCK } else { z::Z_NO_FLUSH };
        // SAFETY: the stream was initialised by `new`; input and output are valid for the lengths given, and the
        // exclusive borrow of `out` keeps them apart.
        let code = unsafe { z::inflate(&mut *self.0, flush) };
        let consumed = (avail_in - self.0.avail_in) as usize;
        let produced = (avail_out - self.0.avail_out) as usize;
        let kind = self.0.data_type;
        match code {
            z::Z_OK | z::Z_BUF_ERROR => {
                let boundary = (kind & 128 != 0 && kind & 64 == 0).then_some((kind & 7) as u8);
                Ok(Ran { consumed, produced, end: false, boundary })
            }
            z::Z_STREAM_END => Ok(Ran { consumed, produced, end: true, boundary: None }),
            code => Err(unexpected(code)),
        }
    }

    /// The last bytes put out, at most 32 KiB: what a restart at this place needs.
    pub(super) fn window(&self, window: &mut [u8; WINDOW]) -> usize {
        let mut len = 0;
        // SAFETY: the stream was initialised by `new`; 32 KiB are always enough for the dictionary.
        let code = unsafe { z::inflateGetDictionary(&*self.0, window.as_mut_ptr(), &mut len) };
        if code == z::Z_OK { (len as usize).min(WINDOW) } else { 0 }
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: initialised by `new` and ended once, here.
        unsafe { z::inflateEnd(&mut *self.0) };
    }
}

fn clip(len: usize) -> u32 {
    len.min(1 << 30) as u32
}

fn unexpected(code: c_int) -> Error {
    match code {
        z::Z_MEM_ERROR => Error::new(Kind::Io, "no memory for a decoder"),
        _ => Error::new(Kind::Corrupt, "gzip: invalid data or checksum"),
    }
}

/// The CRC-32 of gzip over `bytes`, continued from `start` (0 at first).
pub fn crc32(start: u32, bytes: &[u8]) -> u32 {
    // SAFETY: the bytes are readable for their length.
    unsafe { z::crc32_z(start.into(), bytes.as_ptr(), bytes.len()) as u32 }
}
