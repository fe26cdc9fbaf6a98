//! zstd in one pass: frames one after the other, skippable ones among them; the beginning of a frame is a place to
//! restart at, and there is no other.

use super::{Decoder, Marks, Step};
use crate::error::{Error, Kind, Result};
use crate::fail;
use ::zstd::zstd_safe::{DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, get_error_name};

/// A decoder of frames; also the live decoder of random reads is made of it.
pub(super) struct Frames {
    context: DCtx<'static>,
    /// The last frame is complete, or none has begun.
    pub(super) between: bool,
}

impl Frames {
    /// A decoder that refuses a window larger than `2^window_log` bytes: it is what bounds its memory.
    pub(super) fn new(window_log: u32) -> Result<Frames> {
        let Some(mut context) = DCtx::try_create() else { return fail!(Io, "no memory for a decoder") };
        context.set_parameter(DParameter::WindowLogMax(window_log.clamp(10, 31))).map_err(broken)?;
        Ok(Frames { context, between: true })
    }

    /// Decodes up to the end of the input, of the output or of a frame.
    pub(super) fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step> {
        if self.between && input.is_empty() {
            return Ok(Step { consumed: 0, produced: 0 });
        }
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(out);
        let left = self.context.decompress_stream(&mut to, &mut from).map_err(broken)?;
        self.between = left == 0;
        Ok(Step { consumed: from.pos(), produced: to.pos() })
    }

    /// The memory that the decoder holds.
    pub(super) fn weight(&self) -> usize {
        self.context.sizeof()
    }
}

fn broken(code: ErrorCode) -> Error {
    let name = get_error_name(code);
    match name {
        "Frame requires too much memory for decoding" => Error::new(
            Kind::Unsupported,
            "zstd: the layer was compressed with a window that is larger than ctrfs allows for its memory",
        ),
        "Allocation error : not enough memory" => Error::new(Kind::Io, "no memory for a decoder"),
        _ => Error::new(Kind::Corrupt, format!("zstd: {name}")),
    }
}

/// The decoder of a whole zstd blob.
pub(super) struct Zstd {
    frames: Frames,
    input: u64,
    output: u64,
}

impl Zstd {
    pub(super) fn new(window_log: u32) -> Result<Zstd> {
        Ok(Zstd { frames: Frames::new(window_log)?, input: 0, output: 0 })
    }
}

impl Decoder for Zstd {
    fn step(&mut self, input: &[u8], out: &mut [u8], marks: &mut Marks) -> Result<Step> {
        if self.frames.between && !input.is_empty() {
            marks.start(self.input, self.output)?;
        }
        let step = self.frames.run(input, out)?;
        self.input += step.consumed as u64;
        self.output += step.produced as u64;
        Ok(step)
    }

    fn end(&self) -> Result<()> {
        match self.frames.between {
            true => Ok(()),
            false => fail!(Corrupt, "zstd: the data ends in the middle of a frame"),
        }
    }
}
