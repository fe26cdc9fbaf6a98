//! Root filesystems in the tree: `rootfs/` of manifests and containers, `fs/` of layers and snapshots.
//!
//! A root filesystem is built at the first lookup *inside* it, never by a stat of it. Building takes as long as
//! reading its layers; whoever asks meanwhile is parked and holds no thread ([`Kind::NotYet`]). What was built is
//! kept while there is room, and built again from the indexes on disk, in milliseconds, where it was not.

mod blob;
mod committed;
mod hidden;
mod inside;
mod lookup;
mod place;
mod source;
mod unpacked;

use crate::containerd::{Mount, Views};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::layers::merge::{Handle, Rootfs};
use crate::layers::mounted::Mounted;
use crate::layers::reader::Reader;
use crate::layers::store::Store;
use crate::node::pool::Pool;
use crate::node::stable_hash;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use committed::fs;
pub use hidden::graft as hidden;
pub use lookup::read_file;
pub use place::graft;
pub use source::{Whole, alone};
use unpacked::Holder;
pub use unpacked::{Live, live};

/// Root filesystems that are kept at hand.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Root filesystems that are built at once. Their layers share the store's workers.
const BUILDERS: usize = 4;

/// How long a failure is believed before it is tried again: damage stays, but a blob may come back.
const FAILED_FOR: Duration = Duration::from_secs(30);

/// How often a root filesystem is built of snapshots that are gone once it is.
const TRIES: usize = 4;

/// How many failures are remembered.
const FAILURES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// What a root filesystem is made from. Two keys that are equal give the same files.
pub trait Source: Send + Sync + 'static {
    /// Names it among all.
    fn key(&self) -> String;
    /// Builds it. May take as long as its layers are large.
    fn build(&self, store: &Store) -> Result<Built>;
    /// Whether it can change while it is looked at: then nothing in it is cached.
    fn is_live(&self) -> bool {
        false
    }
    /// What its root directory has as time, where the source says nothing.
    fn created(&self) -> Option<std::time::SystemTime>;
    /// What is told of a file of layer `layer` by the xattrs `user.ctrfs.*`.
    fn attribute(&self, layer: usize, name: &str) -> Result<Option<Vec<u8>>>;
    /// The same of the root directory, which is the topmost layer's.
    fn attribute_root(&self, _name: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
    /// Whether its files cost disk space here, or only show again what stands elsewhere.
    fn is_again(&self) -> bool {
        false
    }
}

/// A root filesystem and the readers of its layers.
pub struct Built {
    pub rootfs: Rootfs,
    /// By number from the base; none for a layer that is a directory on disk.
    pub readers: Vec<Option<Arc<Reader>>>,
    /// Tells from which kinds of layers it was built: a handle is good in one of the same shape.
    pub shape: u64,
    /// The snapshots that its directories belong to.
    holders: Vec<Holder>,
}

impl Built {
    pub fn new(rootfs: Rootfs, readers: Vec<Option<Arc<Reader>>>) -> Built {
        let kinds: Vec<u8> = readers.iter().map(|reader| u8::from(reader.is_some())).collect();
        let shape = stable_hash(&[&rootfs.len().to_le_bytes(), &kinds]);
        Built { rootfs, readers, shape, holders: Vec::new() }
    }
}

/// All root filesystems.
pub struct Roots {
    store: Store,
    state: Mutex<State>,
    builders: Pool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    views: Option<Arc<Views>>,
    /// File systems that were mounted to look into views, by kind and source.
    mounts: Mutex<HashMap<(String, String), Mounted>>,
    /// Links are shown so that following one never leaves its root filesystem.
    inside: bool,
}

struct State {
    built: lru::LruCache<String, Arc<Built>>,
    building: HashSet<String>,
    failed: lru::LruCache<String, (Error, Instant)>,
    hidden: hidden::Kept,
}

impl Roots {
    /// With indexes below `cache`. Where there are no `views`, nothing is changed in containerd to see where a snapshot
    /// is, and what cannot be had otherwise is absent. With `inside`, links are rewritten so that they stay inside.
    pub fn new(cache: &Path, views: Option<Arc<Views>>, inside: bool) -> Roots {
        let config = crate::layers::store::Config::new(PARSER, || Box::new(Scanner::default()));
        Roots {
            store: Store::open(Some(cache), config),
            state: Mutex::new(State {
                built: lru::LruCache::new(KEPT),
                building: HashSet::new(),
                failed: lru::LruCache::new(FAILURES),
                hidden: hidden::Kept::default(),
            }),
            builders: Pool::new(BUILDERS),
            wake: OnceLock::new(),
            views,
            mounts: Mutex::default(),
            inside,
        }
    }

    /// The views that may be made of committed snapshots, if any may.
    pub fn views(&self) -> Option<&Arc<Views>> {
        self.views.as_ref()
    }

    /// A path to the root of a file system that a mount of one of our views tells of. It stays mounted until the end.
    fn mounted(&self, mount: &Mount) -> Result<PathBuf> {
        let key = (mount.kind.clone(), mount.source.clone());
        let known = |mounts: &HashMap<_, Mounted>| mounts.get(&key).map(Mounted::path);
        if let Some(path) = known(&self.mounts.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(path);
        }
        let mounted = Mounted::new(&mount.kind, &mount.source, &mount.options)?;
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(mounts.entry(key).or_insert(mounted).path())
    }

    /// Gives back what is held in containerd: the mount has ended.
    pub fn end(&self) {
        // First: a snapshot whose device is mounted cannot be removed.
        self.lock().built.clear();
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(views) = &self.views {
            views.end();
        }
    }

    /// Has `wake` called whenever something was built.
    pub fn on_built(&self, wake: impl Fn() + Send + Sync + 'static) {
        // Set once, when the mount is there.
        let _ = self.wake.set(Box::new(wake));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root filesystem of a source: at hand, or [`Kind::NotYet`] while it is being built, or why it cannot be.
    pub fn get(self: &Arc<Self>, source: &Arc<dyn Source>) -> Result<Arc<Built>> {
        let key = source.key();
        let mut state = self.lock();
        if let Some(built) = state.built.get(&key) {
            return Ok(Arc::clone(built));
        }
        if let Some((error, since)) = state.failed.get(&key)
            && since.elapsed() < FAILED_FOR
        {
            return Err(error.clone());
        }
        if state.building.insert(key.clone()) {
            let (roots, source) = (Arc::clone(self), Arc::clone(source));
            self.builders.run(move || roots.build(&key, &*source));
        }
        drop(state);
        Err(Error::new(Kind::NotYet, "the layers are being read"))
    }

    /// Whether all that it is made from is still there. If not, the next one who asks has it built again.
    fn is_whole(&self, source: &dyn Source, built: &Arc<Built>) -> bool {
        if built.rootfs.is_whole() {
            return true;
        }
        let key = source.key();
        let mut state = self.lock();
        if state.built.peek(&key).is_some_and(|kept| Arc::ptr_eq(kept, built)) {
            state.built.pop(&key);
        }
        false
    }

    /// Finds out what the identity of a file has to know of all of its layer; whoever asked is woken then.
    fn settle(self: &Arc<Self>, source: &dyn Source, built: &Arc<Built>, handle: &Handle) {
        let key = format!("links of {}", source.key());
        if self.lock().building.insert(key.clone()) {
            let (roots, built, handle) = (Arc::clone(self), Arc::clone(built), handle.clone());
            self.builders.run(move || {
                // As for building: a panic is a bug, and whoever waits must not wait for ever.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| built.rootfs.settle(&handle)));
                roots.lock().building.remove(&key);
                roots.woken();
            });
        }
    }

    fn woken(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Why the root filesystem of a source could not be built, when that was tried last.
    pub fn failure(&self, source: &dyn Source) -> Option<Error> {
        self.lock().failed.peek(&source.key()).map(|(error, _)| error.clone())
    }

    /// How far each of these layers is read, while it is: digest, bytes read, bytes in all.
    pub fn progress(&self, layers: impl Iterator<Item = String>) -> Vec<(String, u64, u64)> {
        let told = |digest: String| self.store.progress(&digest).map(|p| (digest, p.read, p.total));
        layers.filter_map(told).collect()
    }

    /// Builds it of what is all there: a layer's directory that was being removed when it was opened is not believed,
    /// and one that is removed from then on tells so itself ([`Rootfs::is_whole`]).
    fn build_whole(&self, source: &dyn Source) -> Result<Built> {
        for _ in 0..TRIES {
            let built = source.build(&self.store)?;
            let known = built.holders.iter().map(Holder::is_known).collect::<Result<Vec<bool>>>()?;
            if known.into_iter().all(|known| known) {
                return Ok(built);
            }
        }
        fail!(Again, "its snapshots are removed as they are looked at")
    }

    fn build(&self, key: &str, source: &dyn Source) {
        // A panic while building is a bug; whoever waits is told, and the next one may try again.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.build_whole(source)))
            .unwrap_or_else(|_| Err(Error::new(Kind::Io, "ctrfs has a bug here: its standard error says where")));
        let mut state = self.lock();
        match result {
            Ok(built) => {
                state.failed.pop(key);
                state.built.put(key.to_owned(), Arc::new(built));
            }
            Err(error) => {
                tracing::warn!(key, %error, "a root filesystem cannot be shown");
                state.failed.put(key.to_owned(), (error, Instant::now()));
            }
        }
        state.building.remove(key);
        drop(state);
        self.woken();
    }
}

/// The version of the tar reader: raise it when the entries that it makes change, and old indexes are built anew.
const PARSER: u32 = 1;

/// The tar reader as the store runs it.
#[derive(Default)]
struct Scanner(crate::layers::tar::Parser);

impl crate::layers::store::Scan for Scanner {
    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(crate::layers::Entry) -> Result<()>) -> Result<()> {
        self.0.push(bytes, emit)
    }

    fn finish(&mut self, _: &mut dyn FnMut(crate::layers::Entry) -> Result<()>) -> Result<()> {
        self.0.finish()
    }
}
