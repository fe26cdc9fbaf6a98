//! `images import`: images out of an archive, an OCI layout or Docker's, from a file or as it is written.
//!
//! The archive is read once, from its beginning to its end. What it holds goes to the content store as it comes, before it is
//! known what of it is needed: a lease holds it until then, and what nothing refers to goes with the lease.

mod args;
mod docker;
mod names;
mod stream;
mod tarball;

pub use args::{ImportArgs, ImportFlags};
pub use stream::Stream;

use super::fetch::{children, label_args};
use super::platforms::{Wanted, is_modern};
use super::progress::Progress;
use super::pull::LEASE;
use super::{held, unpack};
use crate::containerd::{
    Descriptor, Digest, LabelChanges, ManifestKind, Namespace, NewContent, Platform, Replace, parse_index,
};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use docker::Saved;
use names::Naming;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use tarball::{Tarball, Type};

pub use docker::{Blob, Out, ours};

/// The longest document of an archive.
const DOCUMENT_BYTES: u64 = 8 << 20;

/// Files of one archive, at most.
const FILES: usize = 100_000;

/// Indexes in indexes, at most.
const DEPTH: u32 = 8;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an archive holds, by path.
#[derive(Default)]
struct Files {
    blobs: BTreeMap<String, (Digest, u64)>,
    links: BTreeMap<String, String>,
    index: Option<Vec<u8>>,
    layout: Option<Vec<u8>>,
    saved: Option<Vec<u8>>,
}

impl Files {
    fn blob(&self, path: &str, media_type: &str) -> Option<Descriptor> {
        let found = self.blobs.get(path).or_else(|| self.blobs.get(self.links.get(path)?));
        found.map(|(digest, size)| docker::descriptor(digest, *size, media_type))
    }
}

/// Imports an archive from a file; the names of the images.
pub fn import_file(ns: &Namespace, args: &ImportArgs, progress: &Progress) -> Result<Vec<String>> {
    // The daemon has no directory that its user could mean.
    if !args.file.is_absolute() {
        return fail!(Invalid, "{}: the whole path must be given, from / on", args.file.display());
    }
    let told = |e: std::io::Error| Error::from(e).context(args.file.display());
    let file = std::fs::File::open(&args.file).map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    if metadata.is_file() {
        progress.expect(metadata.len());
    }
    import(ns, &args.how, file, progress)
}

/// Imports an archive as it comes; the names of the images.
pub fn import(ns: &Namespace, args: &ImportFlags, source: impl Read, progress: &Progress) -> Result<Vec<String>> {
    if args.sync_fs {
        return fail!(Unsupported, "--sync-fs is not supported; run `sync` when it is imported");
    }
    let modern = is_modern(ns.client())?;
    let today = jiff::Timestamp::now().to_string();
    let platforms: Vec<String> = args.platform.iter().filter(|_| !args.all_platforms).cloned().collect();
    // Before 2.0 `ctr` takes of an archive whatever this machine runs, and not its own platform alone.
    let own = if modern { Wanted::new(&[], false)? } else { Wanted::Runnable(Platform::host()) };
    let work = Import {
        args,
        naming: Naming::new(args, today.split('T').next().unwrap_or_default(), modern)?,
        wanted: if platforms.is_empty() && !args.all_platforms {
            own.clone()
        } else {
            Wanted::new(&platforms, args.all_platforms)?
        },
        unpacked: if platforms.is_empty() { own } else { Wanted::new(&platforms, false)? },
        labels: label_args(&args.label)?,
        modern,
        progress,
    };
    let snapshotter = match args.no_unpack {
        true => None,
        false => Some(unpack::snapshotter(ns, args.snapshotter.as_deref())?),
    };
    let lease = ns.lease(LEASE)?;
    let held = lease.namespace();
    let files = work.read(held, Counted { source, progress })?;
    let index = work.index(held, &files)?;
    let images = work.images(held, &index)?;
    if let Some(snapshotter) = &snapshotter {
        for (_, target) in &images {
            work.unpack(held, target, snapshotter)?;
        }
    }
    let replace = if modern { Replace::All } else { Replace::Target };
    for (name, target) in &images {
        held.put_image(name, target, &work.labels, replace)?;
    }
    progress.say(format!("imported {}", images.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")));
    Ok(images.into_iter().map(|(name, _)| name).collect())
}

struct Import<'a> {
    args: &'a ImportFlags,
    naming: Naming,
    wanted: Wanted,
    /// Also with all platforms only this machine's is unpacked.
    unpacked: Wanted,
    labels: LabelChanges,
    modern: bool,
    progress: &'a Progress,
}

impl Import<'_> {
    /// Reads the archive to its end.
    fn read(&self, held: &Namespace, mut source: impl Read) -> Result<Files> {
        let mut source = decompressed(&mut source)?;
        let mut tar = Tarball::new(&mut source);
        let mut files = Files::default();
        while let Some(entry) = tar.next()? {
            wait::check()?;
            if files.blobs.len() + files.links.len() > FILES {
                return fail!(TooLong, "an archive of more than {FILES} files");
            }
            match (&entry.what, entry.name.as_str()) {
                (Type::Symlink(target), _) => {
                    files.links.insert(entry.name.clone(), target.clone());
                }
                (Type::Other, _) => {}
                (Type::File, "oci-layout") => files.layout = Some(tar.whole(&entry.name, DOCUMENT_BYTES)?),
                (Type::File, "index.json") => files.index = Some(tar.whole(&entry.name, DOCUMENT_BYTES)?),
                (Type::File, "manifest.json") => files.saved = Some(tar.whole(&entry.name, DOCUMENT_BYTES)?),
                (Type::File, name) => {
                    self.progress.say(format!("reading {name}"));
                    let digest = blob(held, name, entry.size, &mut tar)?;
                    files.blobs.insert(entry.name.clone(), (digest, entry.size));
                }
            }
        }
        match tar.is_whole() {
            true => Ok(files),
            false => fail!(Corrupt, "the archive is cut short: the blocks of zeros at its end are missing"),
        }
    }

    /// The archive's index, as a blob; and its manifests.
    fn index(&self, held: &Namespace, files: &Files) -> Result<Index> {
        let bad = |what: &str, e: serde_json::Error| Error::new(Kind::Corrupt, format!("{what}: {e}"));
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Layout {
            #[serde(default)]
            image_layout_version: String,
        }
        let layout = files.layout.as_ref().map(|bytes| serde_json::from_slice::<Layout>(bytes)).transpose();
        let version = layout.map_err(|e| bad("oci-layout", e))?.map(|l| l.image_layout_version).unwrap_or_default();
        let bytes = match (version.as_str(), &files.index, &files.saved) {
            ("1.0.0", Some(index), _) => index.clone(),
            ("1.0.0", None, _) => return fail!(Corrupt, "an OCI layout without an index.json"),
            ("", _, Some(saved)) => {
                let saved: Vec<Saved> = serde_json::from_slice(saved).map_err(|e| bad("manifest.json", e))?;
                let manifests = docker::manifests(held, &saved, files, self.args.compress_blobs)?;
                super::layout::json(&serde_json::json!({"schemaVersion": 2, "manifests": manifests}))?
            }
            ("", ..) => {
                return fail!(
                    Corrupt,
                    "neither an OCI layout nor an archive of Docker's: there is no oci-layout and no manifest.json in it"
                );
            }
            (version, ..) => return fail!(Unsupported, "an OCI layout of version {version}"),
        };
        let manifests = parse_index(&bytes)?.manifests;
        let digest = held.put_content(&format!("index-{}", Digest::of(&bytes)), &bytes, &BTreeMap::new())?;
        Ok(Index { target: docker::descriptor(&digest, bytes.len() as u64, OCI_INDEX), manifests })
    }

    /// The images that the archive makes, their content held together.
    fn images(&self, held: &Namespace, index: &Index) -> Result<Vec<(String, Descriptor)>> {
        let mut seen = HashSet::new();
        let found = self.hold(held, &index.target, &index.manifests, DEPTH, &mut seen)?;
        if !found {
            return fail!(NotFound, "the archive has no image for {}", self.wanted.names());
        }
        let mut images = Vec::new();
        if let Some(name) = self.args.index_name.as_ref().filter(|name| !name.is_empty()) {
            images.push((name.clone(), index.target.clone()));
        }
        if let Some(tag) = &self.args.tag {
            let real: Vec<&Descriptor> = index.manifests.iter().filter(|m| !m.is_attestation()).collect();
            let digests: HashSet<&Digest> = real.iter().map(|m| &m.digest).collect();
            let ([first, ..], 1) = (&real[..], digests.len()) else {
                return fail!(Invalid, "--tag names an archive's only image, and this one has {}", digests.len());
            };
            images.push((tag.clone(), (*first).clone()));
            return Ok(images);
        }
        for manifest in &index.manifests {
            images.extend(self.naming.of(manifest).into_iter().map(|name| (name, manifest.clone())));
        }
        Ok(images)
    }

    /// Labels a document so that it holds what it names. Whether there is an image in it.
    fn hold(
        &self,
        held: &Namespace,
        at: &Descriptor,
        named: &[Descriptor],
        depth: u32,
        seen: &mut HashSet<Digest>,
    ) -> Result<bool> {
        wait::check()?;
        if depth == 0 || seen.len() > FILES {
            return fail!(TooLong, "{}: indexes in {DEPTH} indexes, or more than {FILES} manifests", at.digest);
        }
        let taken: Vec<Descriptor> =
            named.iter().filter(|child| self.wanted.takes(child.platform.as_deref())).cloned().collect();
        // The transfer service holds what it does not take; `ctr` before 2.0 lets it go.
        let kept = if self.modern && !self.args.local { named } else { &taken };
        let labels = held::labels(kept, !self.args.discard_unpacked_layers);
        if !labels.is_empty() {
            held.label_blob(&at.digest, &labels)?;
        }
        let mut found = false;
        for child in taken {
            if !(child.is_index() || child.is_manifest()) {
                continue;
            }
            found |= child.is_manifest();
            if !seen.insert(child.digest.clone()) {
                continue;
            }
            let bytes = held.document(&child.digest).map_err(|e| match e.kind() {
                Kind::NotLocal => Error::new(Kind::Corrupt, format!("{}: named, and not in the archive", child.digest)),
                _ => e,
            })?;
            let below = children(&child, &bytes)?;
            found |= self.hold(held, &child, &below, depth - 1, seen)?;
        }
        Ok(found)
    }

    fn unpack(&self, held: &Namespace, target: &Descriptor, snapshotter: &str) -> Result<()> {
        let resolved = held.resolve(target)?;
        let manifests: Vec<Descriptor> = resolved
            .manifests
            .iter()
            .filter(|m| m.local)
            .map(|m| Descriptor { platform: m.platform.clone(), ..m.descriptor.clone() })
            .collect();
        // An image that is no index is unpacked whatever it is for, except by the transfer service.
        let chosen = match resolved.is_index || self.modern {
            true => self.unpacked.best(&manifests),
            false => manifests.iter().collect(),
        };
        if chosen.is_empty() && !self.modern {
            return fail!(NotFound, "{}: nothing in it is for {}", target.digest, self.unpacked.names());
        }
        for manifest in chosen {
            if held.manifest_now(&manifest.digest)?.kind == ManifestKind::Image {
                unpack::unpack(held, &manifest.digest, snapshotter, self.progress)?;
            }
        }
        Ok(())
    }
}

struct Index {
    target: Descriptor,
    manifests: Vec<Descriptor>,
}

/// Puts a file of the archive into the content store. One whose path is its digest must be what its path says.
fn blob(held: &Namespace, name: &str, size: u64, tar: &mut Tarball) -> Result<Digest> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let told = name.strip_prefix("blobs/").and_then(|rest| Digest::parse(&rest.replacen('/', ":", 1)));
    let reference = match &told {
        Some(digest) => format!("import-{digest}"),
        None => format!("import-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)),
    };
    let content = NewContent { reference: &reference, size: Some(size), digest: told.as_ref() };
    let Some(mut writer) = held.write_content(content)? else {
        return told.ok_or_else(|| Error::new(Kind::Io, format!("{name}: cannot be written")));
    };
    // All of it may be here for another namespace.
    if !(told.is_some() && writer.offset() == size) {
        writer.restart();
        let mut buffer = vec![0; 256 << 10];
        loop {
            wait::check()?;
            let wrote = match tar.read(&mut buffer)? {
                0 => break,
                count => writer.write(&buffer[..count]),
            };
            match wrote {
                // Somebody else brought it just now.
                Err(error) if error.kind() == Kind::Exists && told.is_some() => break,
                wrote => wrote?,
            }
        }
    }
    let committed = writer.commit(&LabelChanges::new());
    if committed.is_err() {
        // Nobody goes on with it: the next archive is read from its beginning.
        let _ = wait::until(std::time::Instant::now() + std::time::Duration::from_secs(5), || {
            held.abort_ingest(&reference)
        });
    }
    committed.map_err(|e| if e.kind() == Kind::Digest { e.context(name) } else { e })
}

/// The archive without its compression, if it has one.
pub fn decompressed<'a>(source: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < head.len() {
        match source.read(&mut head[filled..]).map_err(ours)? {
            0 => break,
            count => filled += count,
        }
    }
    let head = head[..filled].to_vec();
    let is_gzip = head.starts_with(&[0x1f, 0x8b, 0x08]);
    let is_zstd = head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let whole = std::io::Cursor::new(head).chain(source);
    if is_gzip {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(whole)));
    }
    if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::new(whole).map_err(ours)?;
        decoder.window_log_max(27).map_err(ours)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

/// Tells how far the reading is.
struct Counted<'a, R> {
    source: R,
    progress: &'a Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}
