//! Decoders that begin at a checkpoint and stay alive between reads: a sequential reader goes on where it was.

use super::inflate::{Inflate, Wrap};
use super::marks::{Checkpoint, unpack};
use super::zstd::Frames;
use super::{Compression, Step};
use crate::error::Result;
use crate::fail;
use crate::layers::Blob;

/// How much of the blob is read at once: little at first, for most random reads need no more.
const INPUT_MIN: usize = 64 << 10;
const INPUT_MAX: usize = 256 << 10;
/// What an inflater holds: its window, its tables and the input.
const INFLATER: usize = 64 << 10;

/// A decoder at a place of the uncompressed stream.
pub struct Live {
    engine: Engine,
    /// Offset in the uncompressed stream of the next byte to come.
    output: u64,
    /// Offset in the blob of the first byte behind `chunk`.
    input: u64,
    chunk: Vec<u8>,
    taken: usize,
}

enum Engine {
    /// An inflater, how it was begun, and how many bytes of a member's end are still to be passed over.
    Gzip {
        inflate: Inflate,
        wrap: Wrap,
        skip: usize,
        between: bool,
    },
    Zstd(Frames),
}

impl Live {
    /// A decoder of `blob` that begins at `checkpoint`, with the window packed as `window`.
    pub fn at(
        blob: &dyn Blob,
        compression: Compression,
        checkpoint: &Checkpoint,
        window: &[u8],
        window_log: u32,
    ) -> Result<Live> {
        let engine = match compression {
            Compression::Plain => return fail!(Io, "a plain archive has no decoder"),
            Compression::Zstd => Engine::Zstd(Frames::new(window_log)?),
            Compression::Gzip if !checkpoint.raw => {
                Engine::Gzip { inflate: Inflate::new(Wrap::Gzip)?, wrap: Wrap::Gzip, skip: 0, between: false }
            }
            Compression::Gzip => {
                let mut inflate = Inflate::new(Wrap::Raw)?;
                let mut byte = [0];
                if checkpoint.bits > 0 && checkpoint.input > 0 {
                    blob.read_at(checkpoint.input - 1, &mut byte)?;
                }
                inflate.resume(checkpoint.bits, byte[0], &unpack(window)?)?;
                Engine::Gzip { inflate, wrap: Wrap::Raw, skip: 0, between: false }
            }
        };
        Ok(Live { engine, output: checkpoint.output, input: checkpoint.input, chunk: Vec::new(), taken: 0 })
    }

    /// Where the next byte lies in the uncompressed stream.
    pub fn output(&self) -> u64 {
        self.output
    }

    /// The memory that this decoder holds, about.
    pub fn weight(&self) -> usize {
        self.chunk.capacity()
            + match &self.engine {
                Engine::Gzip { .. } => INFLATER,
                Engine::Zstd(frames) => frames.weight(),
            }
    }

    /// Fills `out` with the next bytes, completely.
    pub fn read(&mut self, blob: &dyn Blob, out: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            if self.taken == self.chunk.len() {
                self.refill(blob)?;
            }
            let step = self.engine.step(&self.chunk[self.taken..], &mut out[filled..])?;
            if step.produced == 0 && step.consumed == 0 {
                return fail!(Corrupt, "the layer ends earlier than its index says; it is indexed anew");
            }
            self.taken += step.consumed;
            self.output += step.produced as u64;
            filled += step.produced;
        }
        Ok(())
    }

    /// Reads on in the blob; nothing at its end, where a decoder may still hold back output.
    fn refill(&mut self, blob: &dyn Blob) -> Result<()> {
        let size = (self.chunk.len() * 2).clamp(INPUT_MIN, INPUT_MAX);
        let left = blob.size().saturating_sub(self.input);
        self.chunk.resize(left.min(size as u64) as usize, 0);
        self.taken = 0;
        blob.read_at(self.input, &mut self.chunk)?;
        self.input += self.chunk.len() as u64;
        Ok(())
    }
}

impl Engine {
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step> {
        let (inflate, wrap, skip, between) = match self {
            Engine::Zstd(frames) => return frames.run(input, out),
            Engine::Gzip { inflate, wrap, skip, between } => (inflate, wrap, skip, between),
        };
        if *skip > 0 {
            let consumed = input.len().min(*skip);
            *skip -= consumed;
            return Ok(Step { consumed, produced: 0 });
        }
        if *between && !input.is_empty() {
            inflate.reset(Wrap::Gzip)?;
            *wrap = Wrap::Gzip;
            *between = false;
        }
        let ran = inflate.run(input, out, false)?;
        if ran.end {
            // A raw stream leaves CRC and length behind itself: the pass has checked them.
            *skip = if *wrap == Wrap::Raw { 8 } else { 0 };
            *between = true;
        }
        Ok(Step { consumed: ran.consumed, produced: ran.produced })
    }
}
