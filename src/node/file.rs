//! What stands behind a file: bytes that never change, bytes that grow, what takes bytes.

use super::verb::Control;
use crate::error::Result;
use bytes::Bytes;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::SystemTime;

/// Immutable bytes.
pub trait Content: Send + Sync {
    /// Their number.
    fn size(&self) -> u64;
    /// The bytes from `offset`, `length` of them or all that are left. Never fewer: what is missing is an error.
    fn read(&self, offset: u64, length: usize) -> Result<Bytes>;
    /// When they were written.
    fn modified(&self) -> Option<SystemTime> {
        None
    }
    /// What the same bytes are known by wherever they stand: part of the inode number, instead of the path.
    fn identity(&self) -> Option<u64> {
        None
    }
    /// Whether they only show again what stands elsewhere: then they cost nothing.
    fn is_again(&self) -> bool {
        false
    }
    /// Called when it is opened, before anything is read: what can fail fails here, where it says most.
    fn prepare(&self) -> Result<()> {
        Ok(())
    }
    /// A file of this host that holds the same bytes and that nobody changes: the kernel may read it by itself.
    fn backing(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A file that grows. Offsets count from where the file of the name begins now; an open handle keeps its own.
pub trait Stream: Send + Sync {
    /// Tells this file from the one that had the name before it was cut (DESIGN 3): part of the inode number.
    fn generation(&self) -> u64;
    /// When it grew last.
    fn modified(&self) -> Option<SystemTime>;
    /// Bytes that the file of this generation holds.
    fn size(&self) -> u64;
    /// The bytes at `offset` of this generation, empty at its end.
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>>;
    /// A reader that begins where this generation begins and is not held back by its end.
    fn follow(&self) -> Result<Box<dyn Follower>>;
}

/// One reader of a stream that waits at its end. Called from one place at a time.
pub trait Follower: Send {
    /// The bytes at `offset` of this reader's stream: whole records, as many as fit, at least one if any is there.
    fn read(&mut self, offset: u64, length: usize) -> Result<Followed>;
    /// Whether a read where the last one ended would be answered at once.
    fn ready(&self) -> bool;
}

/// What a follower got.
pub enum Followed {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing yet: wait.
    Nothing,
    /// Nothing ever again: end of file.
    End,
}

/// Takes a stream of bytes. Called from one place at a time, on a thread of its own, where it may wait.
pub trait Sink: Send {
    /// Takes `bytes`, which the writer thinks to be at `offset`. Its failure is that of `write(2)`.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Nothing more comes: the last close. What fails here no writer hears; it is noted as the outcome.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What is written to.
pub enum Writer {
    /// A control file.
    Control(Arc<dyn Control>),
    /// A file that takes a stream.
    Sink(Box<dyn Sink>),
}
