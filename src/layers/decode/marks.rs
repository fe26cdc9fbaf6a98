//! The places of a stream at which a decoder can begin, collected while the stream passes.

use super::spill::Spill;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// Under a fuzzer all distances are so much shorter, for its archives are: they have to meet checkpoints as well.
const SHORTER: u64 = if cfg!(fuzzing) { 512 } else { 1 };
/// The distance of checkpoints that cost a window, at first and at most, in uncompressed bytes.
const SPACING: u64 = (2 << 20) / SHORTER;
const SPACING_MAX: u64 = (8 << 20) / SHORTER;
/// So many distances are passed before the distance doubles: it follows the size of the layer, which nobody knows in
/// advance.
const DISTANCES: u64 = 512;
/// The distance of checkpoints that cost nothing.
const FREE: u64 = (256 << 10) / SHORTER;
/// A stretch of input that yields hardly any output must not be long either: a restart has to read it.
const INPUT: u64 = 16 << 20;
/// Windows may take this part of the uncompressed size; with the tables an index stays below a hundredth.
const BUDGET: u64 = if cfg!(fuzzing) { 1 } else { 125 };

/// A place at which a decoder can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Offset in the blob of the first byte that is not yet used up.
    pub input: u64,
    /// Offset in the uncompressed stream of the first byte that comes out.
    pub output: u64,
    /// Where the window lies among the windows, and its compressed length; no window if that is 0.
    pub window: (u64, u32),
    /// So many bits of the byte before `input` are not yet used.
    pub bits: u8,
    /// In the middle of a gzip member; else at the beginning of a member or frame.
    pub raw: bool,
}

/// Collects checkpoints and keeps them few: they stand 2 MiB apart at first, up to 8 MiB in a large layer.
pub struct Marks {
    table: Vec<Checkpoint>,
    windows: Spill,
    packer: zstd::bulk::Compressor<'static>,
    dir: Option<PathBuf>,
    spacing: u64,
}

impl Marks {
    /// No checkpoints yet but the beginning; windows overflow to a file in `dir`.
    pub fn new(dir: Option<&Path>) -> Result<Marks> {
        let packer = zstd::bulk::Compressor::new(1)?;
        let dir = dir.map(Path::to_path_buf);
        let table = vec![Checkpoint::default()];
        Ok(Marks { table, windows: Spill::new(dir.as_deref()), packer, dir, spacing: SPACING })
    }

    fn last(&self) -> Checkpoint {
        self.table.last().copied().unwrap_or_default()
    }

    /// Whether it is time for a checkpoint that costs a window.
    pub(super) fn due(&self, input: u64, output: u64) -> bool {
        let last = self.last();
        output - last.output >= self.spacing || input - last.input >= INPUT
    }

    /// A member or frame begins.
    pub(super) fn start(&mut self, input: u64, output: u64) -> Result<()> {
        let last = self.last();
        if output - last.output >= FREE || input - last.input >= INPUT {
            self.table.push(Checkpoint { input, output, ..Checkpoint::default() });
        }
        Ok(())
    }

    /// A block of a member begins, `bits` bits before `input`, and `window` was put out before.
    pub(super) fn middle(&mut self, input: u64, output: u64, bits: u8, window: &[u8]) -> Result<()> {
        let packed = self.packer.compress(window)?;
        let place = (self.windows.len(), packed.len() as u32);
        self.windows.push(&packed)?;
        self.table.push(Checkpoint { input, output, window: place, bits, raw: true });
        while self.spacing < SPACING_MAX && output > self.spacing * DISTANCES {
            self.spacing *= 2;
            self.thin();
        }
        Ok(())
    }

    /// Drops the checkpoints that cost a window and stand nearer than the distance to the one before them.
    fn thin(&mut self) {
        let (mut input, mut output, spacing) = (0, 0, self.spacing);
        self.table.retain(|c| {
            // A block is at most some 100 KiB: a checkpoint that is that much early is still one.
            let keep = !c.raw || c.output - output >= spacing - FREE || c.input - input >= INPUT;
            if keep {
                (input, output) = (c.input, c.output);
            }
            keep
        });
    }

    /// The largest stretch that a restart may have to pass, in bytes of the larger side.
    fn gap(&self, input: u64, output: u64) -> u64 {
        let ends = self.table.iter().skip(1).map(|c| (c.input, c.output)).chain([(input, output)]);
        let gaps = self.table.iter().zip(ends).map(|(c, end)| (end.0 - c.input).max(end.1 - c.output));
        gaps.max().unwrap_or(0)
    }

    /// The stream so far: whether it went this far without a place to restart at.
    pub(super) fn longer_than(&self, stretch: u64, output: u64) -> bool {
        output - self.last().output > stretch
    }

    /// What is kept of a stream of `input` compressed and `output` uncompressed bytes: the checkpoints, their windows,
    /// and the largest gap.
    pub fn finish(mut self, input: u64, output: u64) -> Result<(Vec<Checkpoint>, Spill, u64)> {
        while self.spacing < 2 * SPACING_MAX && self.weight() > output / BUDGET {
            self.spacing *= 2;
            self.thin();
        }
        let gap = self.gap(input, output);
        let mut windows = Spill::new(self.dir.as_deref());
        let mut packed = Vec::new();
        for checkpoint in &mut self.table {
            packed.clear();
            self.windows.read(checkpoint.window.0, checkpoint.window.1 as usize, &mut packed)?;
            checkpoint.window.0 = windows.len();
            windows.push(&packed)?;
        }
        Ok((self.table, windows, gap))
    }

    fn weight(&self) -> u64 {
        self.table.iter().map(|c| u64::from(c.window.1)).sum()
    }
}

/// The window that was packed as `packed`.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    if packed.is_empty() {
        return Ok(Vec::new());
    }
    zstd::bulk::decompress(packed, super::inflate::WINDOW)
        .map_err(|e| crate::error::Error::caused(crate::error::Kind::Corrupt, "a window of the index is damaged", e))
}
