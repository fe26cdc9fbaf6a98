//! gzip in one pass: members one after the other, each with its checksum, and checkpoints on the way.

use super::inflate::{Inflate, WINDOW, Wrap};
use super::{Decoder, Marks, Step};
use crate::error::Result;
use crate::fail;

/// The decoder of a whole gzip blob.
pub(super) struct Gzip {
    inflate: Inflate,
    window: Box<[u8; WINDOW]>,
    input: u64,
    output: u64,
    /// Between two members, or before the first. Bytes that follow must be a member: containerd refuses trailing
    /// zeros and garbage.
    between: bool,
    members: u64,
}

impl Gzip {
    pub(super) fn new() -> Result<Gzip> {
        let inflate = Inflate::new(Wrap::Gzip)?;
        Ok(Gzip { inflate, window: Box::new([0; WINDOW]), input: 0, output: 0, between: true, members: 0 })
    }
}

impl Decoder for Gzip {
    fn step(&mut self, input: &[u8], out: &mut [u8], marks: &mut Marks) -> Result<Step> {
        if self.between {
            if input.is_empty() {
                return Ok(Step { consumed: 0, produced: 0 });
            }
            self.inflate.reset(Wrap::Gzip)?;
            self.between = false;
            marks.start(self.input, self.output)?;
        }
        // Stopping at each block costs; only where a checkpoint is due is it worth it.
        let due = marks.due(self.input, self.output);
        let ran = self.inflate.run(input, out, due)?;
        self.input += ran.consumed as u64;
        self.output += ran.produced as u64;
        if ran.end {
            self.between = true;
            self.members += 1;
        } else if let (true, Some(bits)) = (due, ran.boundary) {
            let len = self.inflate.window(&mut self.window);
            marks.middle(self.input, self.output, bits, &self.window[..len])?;
        }
        Ok(Step { consumed: ran.consumed, produced: ran.produced })
    }

    fn end(&self) -> Result<()> {
        match self.between && self.members > 0 {
            true => Ok(()),
            false => fail!(Corrupt, "gzip: the data ends in the middle of a member"),
        }
    }
}
