//! Content from a registry: everything that an image is made of, several blobs at once, each written as it comes in.

use super::held;
use super::platforms::Wanted;
use super::progress::Progress;
use super::registry::{Registry, for_good};
use crate::containerd::{
    ContentWriter, Descriptor, Digest, LabelChanges, Namespace, NewContent, parse_index, parse_manifest,
};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Indexes in indexes, at most.
const DEPTH: u32 = 8;

/// Blobs of one image, at most.
const BLOBS: usize = 100_000;

/// How often a blob is gone on with after the connection broke.
const TRIES: u32 = 8;

/// What is fetched, from where, for whom.
pub struct Fetch<'a> {
    /// A handle with a lease.
    pub held: &'a Namespace,
    pub registry: &'a Registry,
    pub wanted: &'a Wanted,
    /// Manifests and configs of all platforms, whatever is wanted.
    pub all_metadata: bool,
    /// How many blobs at once.
    pub parallel: usize,
    pub progress: &'a Progress,
}

/// What a fetch found.
pub struct Found {
    /// What the reference names.
    pub target: Descriptor,
    /// The manifests that are wanted, with their platforms where the index tells them.
    pub manifests: Vec<Descriptor>,
    /// What is still to be fetched, configs first.
    blobs: VecDeque<Descriptor>,
}

/// Which blobs are here. Whoever unpacks waits for the next one.
#[derive(Default)]
pub struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Descriptor>,
    awaited: HashSet<Digest>,
    failed: Option<Error>,
}

impl Fetch<'_> {
    /// Finds out what there is: the target and every manifest that is wanted are here then.
    pub fn resolve(&self) -> Result<Found> {
        self.progress.say(format!("resolving {}/{}", self.registry.locator().host, self.registry.locator().repository));
        let (target, bytes) = self.registry.resolve()?;
        let mut found = Found { target: target.clone(), manifests: Vec::new(), blobs: VecDeque::new() };
        let mut seen = HashSet::new();
        self.walk(&target, bytes, DEPTH, &mut found, &mut seen)?;
        if found.manifests.is_empty() {
            return fail!(NotFound, "{}: there is no manifest for {}", target.digest, self.wanted.names());
        }
        // What is small and says more comes first; the order of the layers is that of the manifests.
        let (configs, layers): (Vec<_>, Vec<_>) = found.blobs.drain(..).partition(Descriptor::is_config);
        found.blobs = configs.into_iter().chain(layers).collect();
        Ok(found)
    }

    fn walk(
        &self,
        at: &Descriptor,
        bytes: Bytes,
        depth: u32,
        found: &mut Found,
        seen: &mut HashSet<Digest>,
    ) -> Result<()> {
        wait::check()?;
        if depth == 0 || found.blobs.len() > BLOBS {
            return fail!(TooLong, "{}: more than {BLOBS} blobs, or indexes in {DEPTH} indexes", at.digest);
        }
        let children = children(at, &bytes)?;
        let mut labels = held::labels(&children, true);
        labels.extend(self.source(at)?);
        self.held.put_content(&held::reference(at), &bytes, &labels)?;
        let taken = self.wanted.takes(at.platform.as_deref());
        if !at.is_index() && taken {
            found.manifests.push(at.clone());
        }
        for child in children {
            let is_document = child.is_index() || child.is_manifest();
            // Another platform's layers are left where they are; with all metadata its config is not.
            let skipped = match is_document {
                true => !self.all_metadata && !self.wanted.takes(child.platform.as_deref()),
                false => !taken && !child.is_config(),
            };
            if skipped || !seen.insert(child.digest.clone()) {
                continue;
            }
            if is_document {
                let bytes = match self.held.blob(&child.digest)? {
                    Some(_) => self.held.document(&child.digest)?,
                    None => self.registry.manifest(&child)?,
                };
                self.walk(&child, bytes, depth - 1, found, seen)?;
            } else {
                self.progress.expect(child.size);
                found.blobs.push_back(child);
            }
        }
        Ok(())
    }

    fn source(&self, blob: &Descriptor) -> Result<Option<(String, String)>> {
        let locator = self.registry.locator();
        held::source(self.held, blob, locator.hostname(), &locator.repository)
    }

    /// Fetches what was found, while `meanwhile` does what can be done with what is here already. Its result.
    pub fn blobs<T>(&self, found: Found, meanwhile: impl FnOnce(&Arrivals) -> Result<T>) -> Result<T> {
        let awaited = found.blobs.iter().map(|blob| blob.digest.clone()).collect();
        let arrivals = Arrivals::default();
        *arrivals.lock() = State { queue: found.blobs, awaited, failed: None };
        let cancel = wait::cancel().unwrap_or_default();
        std::thread::scope(|scope| {
            for number in 0..self.parallel.max(1) {
                let (arrivals, cancel) = (&arrivals, cancel.clone());
                let work = move || wait::command(&cancel, || self.work(arrivals));
                let spawned =
                    std::thread::Builder::new().name(format!("ctrfs-fetch-{number}")).spawn_scoped(scope, work);
                if let Err(error) = spawned {
                    arrivals.fail(error.into());
                }
            }
            let done = meanwhile(&arrivals);
            if done.is_err() {
                arrivals.stop.store(true, Ordering::Relaxed);
            }
            let all = arrivals.all();
            // What went wrong with a blob is why the rest went wrong; a blob that was given up tells nothing.
            let failure = arrivals.failure().filter(|error| error.kind() != Kind::Cancelled);
            match (failure, done) {
                (_, Err(error)) if error.kind() == Kind::Interrupted => Err(error),
                (Some(error), _) => Err(error),
                (None, done) => done.and_then(|done| all.map(|()| done)),
            }
        })
    }

    fn work(&self, arrivals: &Arrivals) {
        while let Some(blob) = arrivals.take() {
            match self.blob(&blob, arrivals) {
                Ok(()) => arrivals.arrived(&blob.digest),
                Err(error) => arrivals.fail(error),
            }
        }
    }

    /// One blob.
    fn blob(&self, blob: &Descriptor, arrivals: &Arrivals) -> Result<()> {
        let reference = held::reference(blob);
        let labels: LabelChanges = self.source(blob)?.into_iter().collect();
        let content =
            NewContent { reference: &reference, size: Some(blob.size).filter(|s| *s > 0), digest: Some(&blob.digest) };
        self.progress.say(format!("fetching {}", blob.digest));
        let mut tries = 0;
        let mut counted = 0;
        // Written anew each time: what containerd has by then is where it goes on.
        while let Some(mut writer) = self.held.write_content(content)? {
            let before = writer.offset();
            let mut on = |bytes: u64| {
                self.progress.add(bytes.saturating_sub(counted));
                counted = counted.max(bytes);
            };
            on(before);
            match self.receive(blob, &mut writer, arrivals, &mut on) {
                Ok(()) => return writer.commit(&labels).map(drop),
                Err(error) if error.kind() == Kind::Exists => {}
                Err(error) if error.kind() == Kind::Again && tries < TRIES => {
                    tries = if writer.offset() > before { 0 } else { tries + 1 };
                    writer.flush()?;
                    pause(Duration::from_millis(200) * (1 << tries.min(5)))?;
                }
                Err(error) => return Err(for_good(error)),
            }
        }
        self.progress.add(blob.size.saturating_sub(counted));
        if !labels.is_empty() {
            self.held.label_blob(&blob.digest, &labels)?;
        }
        Ok(())
    }

    fn receive(
        &self,
        blob: &Descriptor,
        writer: &mut ContentWriter,
        arrivals: &Arrivals,
        on: &mut dyn FnMut(u64),
    ) -> Result<()> {
        if blob.size > 0 && writer.offset() == blob.size {
            return Ok(());
        }
        let (begin, mut incoming) = self.registry.blob(blob, writer.offset())?;
        if begin != writer.offset() {
            writer.restart();
        }
        while let Some(piece) = incoming.piece()? {
            wait::check()?;
            if arrivals.stop.load(Ordering::Relaxed) {
                return fail!(Cancelled, "{}: not needed any more", blob.digest);
            }
            if blob.size > 0 && writer.offset() + piece.len() as u64 > blob.size {
                return fail!(Digest, "{}: the registry sends more than the {} bytes of it", blob.digest, blob.size);
            }
            writer.write(&piece)?;
            on(writer.offset());
        }
        if blob.size > 0 && writer.offset() < blob.size {
            return fail!(Again, "{}: the registry sent {} bytes of {}", blob.digest, writer.offset(), blob.size);
        }
        Ok(())
    }
}

fn pause(time: Duration) -> Result<()> {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        wait::check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Descriptor> {
        let mut state = self.lock();
        let stopped = state.failed.is_some() || self.stop.load(Ordering::Relaxed);
        if stopped { None } else { state.queue.pop_front() }
    }

    fn arrived(&self, digest: &Digest) {
        self.lock().awaited.remove(digest);
        self.changed.notify_all();
    }

    fn fail(&self, error: Error) {
        self.lock().failed.get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    fn failure(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// Whether a blob is here.
    pub fn has(&self, digest: &Digest) -> bool {
        !self.lock().awaited.contains(digest)
    }

    /// Waits until a blob is here.
    pub fn wait(&self, digest: &Digest) -> Result<()> {
        self.until(|state| !state.awaited.contains(digest))
    }

    /// Waits until all are.
    pub fn all(&self) -> Result<()> {
        self.until(|state| state.awaited.is_empty())
    }

    fn until(&self, done: impl Fn(&State) -> bool) -> Result<()> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if done(&state) {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) {
                return fail!(Cancelled, "not needed any more");
            }
            state =
                self.changed.wait_timeout(state, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner).0;
            wait::check()?;
        }
    }
}

/// What a document names.
pub fn children(at: &Descriptor, bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let told = |e: Error| e.context(&at.digest);
    if at.is_index() {
        return Ok(parse_index(bytes).map_err(told)?.manifests);
    }
    if !at.is_manifest() {
        return fail!(
            Unsupported,
            "{}: of type {}, which is neither a manifest nor an index",
            at.digest,
            at.media_type
        );
    }
    let manifest = parse_manifest(bytes).map_err(told)?;
    Ok(manifest.config.into_iter().chain(manifest.layers.iter().map(|layer| layer.descriptor.clone())).collect())
}

/// Labels as commands have them: `KEY=VALUE`, or `KEY` for an empty one.
pub fn label_args(args: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for arg in args {
        let (key, value) = arg.split_once('=').unwrap_or((arg, ""));
        if key.is_empty() {
            return fail!(Invalid, "--label {arg:?}: a label has a key, as in KEY=VALUE");
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}
