//! The store of indexes: which layers are known, who builds what, and what stays.
//!
//! A layer is indexed once however many ask for it; who gives up waiting stops nothing. What was learned lies below
//! the cache directory and is found there after a restart; where nothing can be written it is kept in memory.

mod jobs;
mod spooling;

pub use self::jobs::Progress;

use self::jobs::Jobs;
use self::spooling::Spooling;
use super::decode::{Digest, Limits, media};
use super::index::{self, Index};
use super::reader::{Layer, Pool, Reader, Shared, SpanCache};
use super::spool::Spools;
use super::{Blob, Entry};
use crate::error::{Error, Kind, Result};
use crate::fail;
use lru::LruCache;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads a tar archive as it passes.
pub trait Scan {
    /// The next bytes of the archive; every entry that is complete goes to `emit`. What follows the end marker is
    /// given as well, and ignored.
    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;
    /// The archive is over: fails if it is not whole.
    fn finish(&mut self, emit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;
}

/// Whether a caller goes on waiting: until when before it is asked again, or why not.
pub type Patience<'a> = &'a dyn Fn() -> Result<Instant>;

/// What a store may use.
#[derive(Debug, Clone)]
pub struct Config {
    /// All index files together, in bytes.
    pub idx_cap: u64,
    /// All uncompressed copies together, in bytes; 0 for none.
    pub spool_cap: u64,
    /// Decoded blocks in memory, in bytes.
    pub span_cache: usize,
    /// Layers that are indexed at once.
    pub workers: usize,
    /// What a layer may be.
    pub limits: Limits,
    /// The entries a layer may have.
    pub entries: u64,
    /// The version of the reader that makes the entries: an index of another one is built anew.
    pub parser: u32,
    /// A reader of one archive.
    pub scan: fn() -> Box<dyn Scan>,
}

impl Config {
    /// The defaults, with entries made by the reader `scan` of version `parser`.
    pub fn new(parser: u32, scan: fn() -> Box<dyn Scan>) -> Config {
        Config {
            idx_cap: 512 << 20,
            spool_cap: 2 << 30,
            span_cache: 32 << 20,
            workers: 2,
            limits: Limits::default(),
            entries: 4_000_000,
            parser,
            scan,
        }
    }
}

/// Layers of which index and state are kept at hand.
const LAYERS: usize = 256;
/// What indexes may take that no disk took.
const IN_MEMORY: usize = 128 << 20;
/// What waiting decoders may hold.
const DECODERS: usize = 16 << 20;
/// How many failures are remembered, and for how long: damage is there to stay, other causes pass.
const FAILURES: usize = 256;
const DAMAGE_FOR: Duration = Duration::from_secs(30);
const OTHERS_FOR: Duration = Duration::from_secs(1);

/// The store. Cheap to clone; when the last clone goes, what is being built is given up.
#[derive(Clone)]
pub struct Store(Arc<Open>);

struct Open {
    inner: Arc<Inner>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.inner.jobs.stop();
        self.inner.spooling.stop();
    }
}

/// What the threads of a store share with it.
struct Inner {
    config: Config,
    /// Where indexes lie; none if no directory can be written.
    root: Option<PathBuf>,
    /// Where files without names may be made.
    scratch: Option<PathBuf>,
    state: Mutex<State>,
    jobs: Jobs,
    spooling: Spooling,
    shared: Arc<Shared>,
}

struct State {
    layers: LruCache<Digest, Arc<Layer>>,
    failures: LruCache<Digest, (Error, Instant)>,
    /// The bytes of all index files; unknown until the first is written.
    on_disk: Option<u64>,
}

impl Store {
    /// The store below `dir`, which is made, with mode 0700. If that fails, or there is none, everything is kept in
    /// memory, as far as it fits.
    pub fn open(dir: Option<&Path>, config: Config) -> Store {
        let dir = dir.and_then(|dir| match prepare(dir) {
            Ok(()) => Some(dir),
            Err(error) => {
                tracing::warn!("no cache at {}, indexes are kept in memory: {error}", dir.display());
                None
            }
        });
        let spools = dir.filter(|_| config.spool_cap > 0).map(|dir| Spools::new(dir.join("spool"), config.spool_cap));
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let (promoter, distruster) = (inner.clone(), inner.clone());
            Inner {
                root: dir.map(|dir| dir.join("idx/v1")),
                scratch: dir.map(Path::to_path_buf),
                state: Mutex::new(State {
                    layers: LruCache::new(NonZeroUsize::new(LAYERS).unwrap_or(NonZeroUsize::MIN)),
                    failures: LruCache::new(NonZeroUsize::new(FAILURES).unwrap_or(NonZeroUsize::MIN)),
                    on_disk: None,
                }),
                jobs: Jobs::default(),
                spooling: Spooling::new(spools),
                shared: Arc::new(Shared {
                    spans: SpanCache::new(config.span_cache),
                    pool: Pool::new(DECODERS),
                    window_log: config.limits.window_log,
                    promote: Box::new(move |layer, blob| {
                        if let Some(inner) = promoter.upgrade() {
                            spooling::promote(&inner, layer, blob);
                        }
                    }),
                    distrust: Box::new(move |index| {
                        if let Some(inner) = distruster.upgrade() {
                            inner.forget(index.digest());
                        }
                    }),
                }),
                config,
            }
        });
        Store(Arc::new(Open { inner }))
    }

    /// The index of `blob`, if it is at hand or on disk: nothing is built and nothing waited for.
    pub fn known(&self, blob: &Arc<dyn Blob>, media_type: &str) -> Result<Option<Arc<Index>>> {
        let inner = &self.0.inner;
        media::promise(media_type)?;
        let digest = Digest::parse(blob.digest())?;
        let Some(layer) = inner.layer(&digest) else { return Ok(None) };
        let index = &layer.index;
        media::check(media_type, index.compression())?;
        if index.size() != blob.size() {
            return fail!(Digest, "{digest} has {} bytes here, but {} were indexed", blob.size(), index.size());
        }
        Ok(Some(index.clone()))
    }

    /// Has the index of `blob` built if it is not known, and waits for nothing.
    pub fn start(&self, blob: &Arc<dyn Blob>, media_type: &str) -> Result<()> {
        match self.known(blob, media_type)? {
            Some(_) => Ok(()),
            None => jobs::start(&self.0.inner, blob).map(drop),
        }
    }

    /// The index of `blob`, built if it is not known. Others that ask for it meanwhile get the same one; a caller
    /// whose patience ends stops nobody else.
    pub fn index(&self, blob: &Arc<dyn Blob>, media_type: &str, patience: Patience) -> Result<Arc<Index>> {
        if let Some(index) = self.known(blob, media_type)? {
            return Ok(index);
        }
        let job = jobs::start(&self.0.inner, blob)?;
        let index = job.wait(patience)?;
        media::check(media_type, index.compression())?;
        Ok(index)
    }

    /// The indexes of several layers, which are built at the same time, the largest first.
    pub fn indexes(&self, layers: &[(Arc<dyn Blob>, String)], patience: Patience) -> Result<Vec<Arc<Index>>> {
        for (blob, media_type) in layers {
            self.start(blob, media_type)?;
        }
        layers.iter().map(|(blob, media_type)| self.index(blob, media_type, patience)).collect()
    }

    /// How far the layer of this digest is read, while it is being indexed.
    pub fn progress(&self, digest: &str) -> Option<Progress> {
        self.0.inner.jobs.progress(&Digest::parse(digest).ok()?)
    }

    /// A reader of the uncompressed archive of `blob`, which is what `index` tells about.
    pub fn reader(&self, blob: Arc<dyn Blob>, index: &Arc<Index>) -> Reader {
        let inner = &self.0.inner;
        let layer = inner.adopt(index);
        Reader { blob, layer, shared: inner.shared.clone() }
    }

    /// Forgets everything about the layer of this digest: the blob is gone, or somebody wants it read anew.
    pub fn forget(&self, digest: &str) {
        if let Ok(digest) = Digest::parse(digest) {
            self.0.inner.forget(&digest);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it can be half changed: a thread that died with the lock leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layer of this digest, if it is at hand or its index on disk.
    fn layer(&self, digest: &Digest) -> Option<Arc<Layer>> {
        if let Some(layer) = self.state().layers.get(digest) {
            return Some(layer.clone());
        }
        let index = Index::open(self.root.as_deref()?, digest, self.config.parser)?;
        Some(self.adopt(&Arc::new(index)))
    }

    /// The state that goes with `index`; it is kept at hand.
    fn adopt(&self, index: &Arc<Index>) -> Arc<Layer> {
        if let Some(layer) = self.state().layers.get(index.digest()) {
            return layer.clone();
        }
        let layer = Arc::new(Layer::new(index.clone()));
        if let Some(copy) = self.spooling.open(index) {
            layer.set_spool(copy);
        }
        let mut state = self.state();
        if let Some(other) = state.layers.get(index.digest()) {
            return other.clone();
        }
        state.layers.put(*index.digest(), layer.clone());
        let weight = |layer: &Layer| if layer.index.in_memory() { layer.index.weight() } else { 0 };
        let mut held: usize = state.layers.iter().map(|(_, layer)| weight(layer)).sum();
        while held > IN_MEMORY && state.layers.len() > 1 {
            held -= state.layers.pop_lru().map_or(0, |(_, layer)| weight(&layer));
        }
        layer
    }

    fn forget(&self, digest: &Digest) {
        let layer = {
            let mut state = self.state();
            state.failures.pop(digest);
            state.layers.pop(digest)
        };
        if let Some(root) = &self.root {
            index::remove(root, digest);
        }
        if let Some(layer) = layer {
            layer.drop_spool();
            self.spooling.remove(&layer.index.diff_id());
        }
    }

    /// The failure of `digest` that is still remembered.
    fn failure(&self, digest: &Digest) -> Option<Error> {
        let mut state = self.state();
        let (error, at) = state.failures.get(digest)?;
        let damage = matches!(error.kind(), Kind::Corrupt | Kind::Digest | Kind::Unsupported);
        if at.elapsed() < if damage { DAMAGE_FOR } else { OTHERS_FOR } {
            return Some(error.clone());
        }
        state.failures.pop(digest);
        None
    }

    /// Counts a new index file and keeps the cap, with some room for the next.
    fn keep_cap(&self, weight: u64) {
        let (Some(root), cap) = (&self.root, self.config.idx_cap) else { return };
        let known = self.state().on_disk.map(|total| total + weight);
        let total = match known {
            Some(total) if total <= cap => total,
            _ => index::sweep(root, cap - cap / 8),
        };
        self.state().on_disk = Some(total);
    }
}

/// Makes the directory, for us alone.
fn prepare(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let metadata = fs::metadata(dir)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return fail!(Access, "the directory belongs to user {}", metadata.uid());
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    for sub in ["idx/v1", "spool"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(sub))?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
