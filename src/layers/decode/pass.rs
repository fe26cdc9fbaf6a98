//! One pass over a layer blob: everything that is known about it afterwards is learned here.

use super::digest::Digest;
use super::gzip::Gzip;
use super::marks::Marks;
use super::pipe::{self, CHUNK, DEPTH};
use super::zstd::Zstd;
use super::{Compression, Decoder};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::layers::Blob;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Builder};

pub use super::pipe::{Tee, Watch};

/// The longest stretch of a zstd frame that a random read may have to pass, in uncompressed bytes.
pub const STRETCH: u64 = 8 << 20;

/// What a layer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest archive, in bytes: a member can expand a thousandfold.
    pub uncompressed: u64,
    /// The largest window of a zstd frame, as the logarithm to base 2 of its bytes.
    pub window_log: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { uncompressed: 64 << 30, window_log: 27 }
    }
}

impl Limits {
    fn admit(&self, uncompressed: u64) -> Result<()> {
        match uncompressed <= self.uncompressed {
            true => Ok(()),
            false => fail!(Corrupt, "the layer expands to more than the {} bytes that ctrfs allows", self.uncompressed),
        }
    }
}

/// What a pass talks to.
pub struct Hooks<'a> {
    /// Gets the archive, piece by piece, to its last byte.
    pub sink: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    /// Gets a copy of it on a thread of its own, if it is a zstd blob, where random access is impossible without one.
    pub tee: Option<&'a mut dyn Tee>,
    /// Counts what was read, and stops the pass.
    pub watch: &'a Watch,
    /// Where checkpoints may overflow to a file without a name.
    pub scratch: Option<&'a Path>,
}

/// What a pass found out. The digest of the blob was found to be right.
pub struct Decoded {
    /// Told by the first bytes.
    pub compression: Compression,
    /// The SHA-256 of the archive.
    pub diff_id: [u8; 32],
    /// The length of the archive, with what follows its end marker.
    pub uncompressed: u64,
    /// Places to restart at.
    pub marks: Marks,
}

/// Reads `blob` once, gives its archive to the hooks and checks its digest. Bytes that are not those of the digest
/// are said to be just that, also where they could not be decoded. Whether the compression that is found goes with the
/// media type is for the caller to check: it belongs to an image, and the blob may belong to several.
pub fn pass(blob: &dyn Blob, limits: &Limits, hooks: Hooks) -> Result<Decoded> {
    let expected = Digest::parse(blob.digest())?;
    let mut head = [0; 8];
    let head = &mut head[..blob.size().min(8) as usize];
    blob.read_at(0, head)?;
    let compression = Compression::sniff(head);
    thread::scope(|scope| {
        let (chunks_in, chunks) = sync_channel(DEPTH);
        let (spare_in, spare) = channel();
        let watch = hooks.watch;
        let feeder = Builder::new()
            .name("ctrfs-read".into())
            .spawn_scoped(scope, move || pipe::feed(blob, &expected, chunks_in, spare, watch))?;
        let sha256 = matches!(expected, Digest::Sha256(_));
        let main = Main { chunks, spare: spare_in, limits: *limits, compression, sha256 };
        let decoded = main.run(hooks);
        if decoded.as_ref().is_err_and(|e| !matches!(e.kind(), Kind::Corrupt | Kind::Unsupported)) {
            watch.stop.store(true, Ordering::Relaxed);
        }
        match (feeder.join().map_err(|_| died())?, decoded) {
            // It was told to stop because of the other failure.
            (Err(fed), Err(error)) if fed.kind() == Kind::Cancelled => Err(error),
            (Err(fed), _) => Err(fed),
            (Ok(found), _) if found != expected => {
                fail!(Digest, "the bytes of {expected} are altered: their digest is {found}")
            }
            (Ok(Digest::Sha256(digest)), Ok(decoded)) if compression == Compression::Plain => {
                Ok(Decoded { diff_id: digest, ..decoded })
            }
            (_, decoded) => decoded,
        }
    })
}

fn died() -> Error {
    Error::new(Kind::Io, "a thread of the decoder died")
}

/// The decoding thread's side of a pass.
struct Main {
    chunks: Receiver<Vec<u8>>,
    spare: Sender<Vec<u8>>,
    limits: Limits,
    compression: Compression,
    /// The digest of the blob is made with SHA-256.
    sha256: bool,
}

impl Main {
    fn run(self, hooks: Hooks) -> Result<Decoded> {
        if self.compression == Compression::Plain {
            return self.copy(hooks);
        }
        let (chunks_in, chunks) = sync_channel(DEPTH);
        let (spare_in, spare) = channel();
        thread::scope(|scope| {
            // The ends that a thread sends to are gone only when the pass has failed; its result is then not asked for.
            let (hashing, teeing) =
                (Builder::new().name("ctrfs-hash".into()), Builder::new().name("ctrfs-copy".into()));
            let hasher = match hooks.tee.filter(|_| self.compression == Compression::Zstd) {
                Some(tee) => {
                    let (hashed_in, hashed) = sync_channel(DEPTH);
                    teeing.spawn_scoped(scope, move || pipe::tee(hashed, tee, spare_in))?;
                    hashing.spawn_scoped(scope, move || pipe::hash(chunks, |chunk| drop(hashed_in.send(chunk))))?
                }
                None => hashing.spawn_scoped(scope, move || pipe::hash(chunks, |chunk| drop(spare_in.send(chunk))))?,
            };
            let limits = &self.limits;
            let mut out = Out { sink: hooks.sink, hash: chunks_in, spare, total: 0, limits, watch: hooks.watch };
            let mut marks = Marks::new(hooks.scratch)?;
            match self.compression {
                Compression::Plain => {}
                Compression::Gzip => self.decode(Gzip::new()?, &mut out, &mut marks)?,
                Compression::Zstd => self.decode(Zstd::new(self.limits.window_log)?, &mut out, &mut marks)?,
            }
            let uncompressed = out.total;
            drop(out);
            let diff_id = hasher.join().map_err(|_| died())?;
            Ok(Decoded { compression: self.compression, diff_id, uncompressed, marks })
        })
    }

    /// A plain archive: with SHA-256, as nearly all are, its digest is its diffID, and one hash is enough.
    fn copy(self, hooks: Hooks) -> Result<Decoded> {
        let mut hasher = (!self.sha256).then(Sha256::new);
        let mut uncompressed = 0;
        for chunk in &self.chunks {
            uncompressed += chunk.len() as u64;
            self.limits.admit(uncompressed)?;
            (hooks.sink)(&chunk)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&chunk);
            }
            let _ = self.spare.send(chunk);
        }
        let diff_id = hasher.map_or([0; 32], |hasher| hasher.finalize().into());
        Ok(Decoded { compression: self.compression, diff_id, uncompressed, marks: Marks::new(None)? })
    }

    fn decode(&self, mut decoder: impl Decoder, out: &mut Out, marks: &mut Marks) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut filled = 0;
        for chunk in &self.chunks {
            let mut taken = 0;
            loop {
                let step = decoder.step(&chunk[taken..], &mut buffer[filled..], marks)?;
                taken += step.consumed;
                filled += step.produced;
                if filled == buffer.len() {
                    if marks.longer_than(STRETCH, out.total + filled as u64) {
                        out.watch.unseekable.store(true, Ordering::Relaxed);
                    }
                    buffer = out.put(buffer)?;
                    buffer.resize(CHUNK, 0);
                    filled = 0;
                } else if step.consumed == 0 && step.produced == 0 {
                    break;
                }
            }
            if taken < chunk.len() {
                return fail!(Corrupt, "the decoder does not get on");
            }
            let _ = self.spare.send(chunk);
        }
        decoder.end()?;
        buffer.truncate(filled);
        out.put(buffer).map(drop)
    }
}

/// Where the archive goes.
struct Out<'a> {
    sink: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    hash: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    total: u64,
    limits: &'a Limits,
    watch: &'a Watch,
}

impl Out<'_> {
    /// Hands on a piece and gives back a buffer for the next.
    fn put(&mut self, piece: Vec<u8>) -> Result<Vec<u8>> {
        self.total += piece.len() as u64;
        self.limits.admit(self.total)?;
        (self.sink)(&piece)?;
        if self.hash.send(piece).is_err() {
            return Err(died());
        }
        Ok(self.spare.try_recv().unwrap_or_default())
    }
}
