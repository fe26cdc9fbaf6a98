//! `images export`: images as an archive, byte for byte as `ctr` writes it.

use super::archive::{Archive, Blobs};
use super::fetch::children;
use super::image::known;
use super::layout::{self, Docker};
use super::platforms::Wanted;
use super::progress::Progress;
use crate::containerd::{BlobReader, Descriptor, Digest, Namespace, parse_index};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What is written at a time.
const PIECE: usize = 1 << 20;

/// Indexes in indexes, and blobs, at most.
const DEPTH: u32 = 8;
const BLOBS: usize = 100_000;

/// `images export`
#[derive(Debug, clap::Parser)]
#[command(name = "images export", no_binary_name = true)]
pub struct ExportArgs {
    /// What for, instead of this machine's platform
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Everything that an index names
    #[arg(long)]
    pub all_platforms: bool,
    /// No manifest.json, by which Docker knows the images
    #[arg(long)]
    pub skip_manifest_json: bool,
    /// No blobs that are not to be distributed
    #[arg(long)]
    pub skip_non_distributable: bool,
    #[arg(long, hide = true)]
    local: bool,
    /// The archive, and the images
    pub names: Vec<String>,
}

/// Writes images into a file. One that is not written to its end is removed.
pub fn export(ns: &Namespace, file: &Path, images: &[String], args: &ExportArgs, progress: &Progress) -> Result<()> {
    if images.is_empty() {
        return fail!(Invalid, "an image must be given");
    }
    let archive = archive(ns, images, args)?;
    progress.expect(archive.size());
    progress.say(format!("writing {}", file.display()));
    let readers = Readers { ns: ns.clone(), last: Mutex::default() };
    save(file, archive.size(), progress, |at, length| archive.read_at(&readers, at, length))
}

/// Writes what is `size` bytes long and read in pieces into a file of the host. One that is not written to its end is
/// removed.
pub fn save<B: AsRef<[u8]>>(
    file: &Path,
    size: u64,
    progress: &Progress,
    read_at: impl Fn(u64, usize) -> Result<B>,
) -> Result<()> {
    if !file.is_absolute() {
        return fail!(Invalid, "{}: the whole path must be given, from / on", file.display());
    }
    let told = |e: std::io::Error| Error::from(e).context(file.display());
    let existed = file.exists();
    let mut out = std::fs::File::create(file).map_err(told)?;
    let mut write = || {
        let mut at = 0;
        while at < size {
            wait::check()?;
            let piece = read_at(at, PIECE)?;
            let piece = piece.as_ref();
            if piece.is_empty() {
                return fail!(Io, "{at} bytes instead of {size}");
            }
            out.write_all(piece)?;
            at += piece.len() as u64;
            progress.add(piece.len() as u64);
        }
        Ok(())
    };
    let written = write().map_err(|e: Error| e.context(file.display()));
    if written.is_err() && !existed {
        // A file that was there before is only empty then.
        let _ = std::fs::remove_file(file);
    }
    written
}

/// The blobs of an archive, read one after the other.
struct Readers {
    ns: Namespace,
    last: Mutex<Option<Arc<BlobReader>>>,
}

impl Blobs for Readers {
    fn read_at(&self, digest: &Digest, offset: u64, buf: &mut [u8]) -> Result<()> {
        let lock = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = lock().clone().filter(|reader| reader.digest() == digest);
        let reader = match last {
            Some(reader) => reader,
            None => Arc::new(self.ns.blob_reader(digest)?),
        };
        *lock() = Some(Arc::clone(&reader));
        reader.read_exact_at(offset, buf)
    }
}

/// What goes into an archive.
struct Work<'a> {
    ns: &'a Namespace,
    args: &'a ExportArgs,
    wanted: Wanted,
    blobs: BTreeMap<Digest, u64>,
    /// The manifests that Docker sees, with the names of the images.
    docker: Vec<(Descriptor, Vec<String>)>,
}

fn archive(ns: &Namespace, images: &[String], args: &ExportArgs) -> Result<Archive> {
    let recent = !layout::is_before_1_7(&ns.client().server()?.version);
    let wanted = Wanted::new(&args.platform, false)?;
    let mut work = Work { ns, args, wanted, blobs: BTreeMap::new(), docker: Vec::new() };
    let mut manifests = Vec::new();
    for name in images {
        let target = known(ns, name)?.target.clone();
        let info = if recent { ns.blob(&target.digest)? } else { None };
        manifests.push(layout::named(&target, name, info.as_ref()));
        work.image(&target, name)?;
    }
    let docker = (!args.skip_manifest_json).then(|| work.saved()).transpose()?;
    let (_, _, archive) = layout::whole(manifests, docker, &work.blobs, recent)?;
    Ok(archive)
}

impl Work<'_> {
    fn image(&mut self, target: &Descriptor, name: &str) -> Result<()> {
        if target.is_manifest() {
            self.add(target, DEPTH)?;
            self.name(target, name);
            return Ok(());
        }
        if !target.is_index() {
            return fail!(
                Invalid,
                "image {name}: of type {}, which is neither a manifest nor an index",
                target.media_type
            );
        }
        let index = parse_index(&self.ns.document(&target.digest)?)?;
        self.blob(target)?;
        let taken = |d: &&Descriptor| self.wanted.takes(d.platform.as_deref());
        let chosen = match self.wanted.best(&index.manifests)[..] {
            [first, ..] => Some(first),
            [] => index.manifests.iter().find(taken),
        };
        let Some(chosen) = chosen else {
            return fail!(NotFound, "image {name}: nothing in it is for {}", self.wanted.names());
        };
        for manifest in &index.manifests {
            if self.args.all_platforms || self.wanted.takes(manifest.platform.as_deref()) {
                self.add(manifest, DEPTH)?;
            }
        }
        self.name(chosen, name);
        Ok(())
    }

    fn name(&mut self, manifest: &Descriptor, name: &str) {
        match self.docker.iter_mut().find(|(known, _)| known.digest == manifest.digest) {
            Some((_, names)) => names.push(name.to_owned()),
            None => self.docker.push((manifest.clone(), vec![name.to_owned()])),
        }
    }

    /// A document, and all that it names.
    fn add(&mut self, at: &Descriptor, depth: u32) -> Result<()> {
        wait::check()?;
        let is_foreign = at.media_type.contains("foreign") || at.media_type.contains("nondistributable");
        if is_foreign && self.args.skip_non_distributable {
            return Ok(());
        }
        if depth == 0 {
            return fail!(TooLong, "{}: indexes in {DEPTH} indexes", at.digest);
        }
        self.blob(at)?;
        if at.is_index() || at.is_manifest() {
            for child in children(at, &self.ns.document(&at.digest)?)? {
                self.add(&child, depth - 1)?;
            }
        }
        Ok(())
    }

    fn blob(&mut self, at: &Descriptor) -> Result<()> {
        if self.blobs.len() > BLOBS {
            return fail!(TooLong, "more than {BLOBS} blobs");
        }
        match self.ns.blob(&at.digest)? {
            Some(info) => drop(self.blobs.insert(at.digest.clone(), info.size)),
            None => {
                return fail!(
                    NotLocal,
                    "blob {} is not on this host: it was never pulled, or was discarded",
                    at.digest
                );
            }
        }
        Ok(())
    }

    /// What Docker is told.
    fn saved(&self) -> Result<Vec<Docker>> {
        let mut saved = Vec::new();
        for (manifest, names) in &self.docker {
            let doc = self.ns.manifest(&manifest.digest)?;
            let Some(config) = &doc.config else {
                return Err(Error::new(Kind::Corrupt, format!("manifest {}: it has no config", manifest.digest)));
            };
            let layers = doc.layers.iter().map(|layer| &layer.descriptor);
            saved.push(layout::docker(config, layers, names.iter().map(String::as_str)));
        }
        Ok(saved)
    }
}
