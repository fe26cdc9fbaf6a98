//! `content ingest`: bytes of a host's file, or as they are written, become a blob.

use super::fetch::label_args;
use super::progress::Progress;
use super::pull::LEASE;
use crate::containerd::{ContentWriter, Digest, LabelChanges, LeaseGuard, Namespace, NewContent};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long dropping what was written may take.
const DROP: Duration = Duration::from_secs(10);

/// What is read at a time.
const PIECE: usize = 256 << 10;

/// `content ingest`
#[derive(Debug, clap::Parser)]
#[command(name = "content ingest", no_binary_name = true)]
pub struct IngestArgs {
    /// How long it has to be
    #[arg(long, value_name = "BYTES")]
    pub expected_size: Option<u64>,
    /// What it has to be
    #[arg(long, value_name = "DIGEST")]
    pub expected_digest: Option<String>,
    /// Label the blob
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// What it is called while it is written
    pub reference: String,
    /// A file of this host; without one `ingests/REF/data` is written to
    pub file: Option<PathBuf>,
}

/// A blob that is being written, and the lease that holds it.
pub struct Ingest {
    /// None once it is a blob.
    writer: Option<ContentWriter>,
    labels: LabelChanges,
    size: Option<u64>,
    _lease: LeaseGuard,
}

impl IngestArgs {
    fn digest(&self) -> Result<Option<Digest>> {
        match &self.expected_digest {
            None => Ok(None),
            Some(text) => match Digest::parse(text) {
                Some(digest) => Ok(Some(digest)),
                None => fail!(Invalid, "--expected-digest {text}: no digest"),
            },
        }
    }
}

/// Writes the file that is named; the digest of the blob. One that exists gets the labels.
pub fn ingest(ns: &Namespace, args: &IngestArgs, progress: &Progress) -> Result<Digest> {
    let Some(path) = &args.file else { return fail!(Invalid, "a file must be given") };
    if !path.is_absolute() {
        return fail!(Invalid, "{}: the whole path must be given, from / on", path.display());
    }
    let told = |e: std::io::Error| Error::from(e).context(path.display());
    let mut file = std::fs::File::open(path).map_err(told)?;
    progress.expect(file.metadata().map_err(told)?.len());
    progress.say(format!("reading {}", path.display()));
    let Some(mut ingest) = Ingest::begin(ns, args)? else {
        let digest = args.digest()?.ok_or_else(|| Error::new(Kind::Exists, "it exists"))?;
        return Ok(digest);
    };
    let mut buffer = vec![0; PIECE];
    loop {
        wait::check()?;
        match file.read(&mut buffer).map_err(told)? {
            0 => return ingest.commit(),
            count => {
                ingest.write(&buffer[..count])?;
                progress.add(count as u64);
            }
        }
    }
}

impl Ingest {
    /// Begins; none if the blob exists, which then has the labels.
    pub fn begin(ns: &Namespace, args: &IngestArgs) -> Result<Option<Ingest>> {
        if args.reference.is_empty() {
            return fail!(Invalid, "a reference must be given");
        }
        let labels = label_args(&args.label)?;
        let (size, digest) = (args.expected_size, args.digest()?);
        let lease = ns.lease(LEASE)?;
        let content = NewContent { reference: &args.reference, size, digest: digest.as_ref() };
        let Some(mut writer) = lease.namespace().write_content(content)? else {
            if let (Some(digest), false) = (&digest, labels.is_empty()) {
                ns.label_blob(digest, &labels)?;
            }
            return Ok(None);
        };
        writer.restart();
        Ok(Some(Ingest { writer: Some(writer), labels, size, _lease: lease }))
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(writer) = &mut self.writer else { return fail!(Exists, "it is a blob already") };
        if self.size.is_some_and(|size| writer.offset() + bytes.len() as u64 > size) {
            return fail!(Digest, "more bytes than were expected");
        }
        writer.write(bytes)
    }

    /// Whether all bytes are there.
    pub fn is_whole(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| self.size == Some(writer.offset()))
    }

    /// Makes a blob of it.
    pub fn commit(mut self) -> Result<Digest> {
        match self.writer.take() {
            Some(writer) => writer.commit(&self.labels),
            None => fail!(Exists, "it is a blob already"),
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Nobody can go on with it; also after the command was cancelled, so not under its policy.
        if let Some(writer) = self.writer.take() {
            let dropped: Result<()> = wait::until(Instant::now() + DROP, || writer.abort());
            if let Err(error) = dropped {
                tracing::warn!(%error, "an ingest stays until it ends by itself");
            }
        }
    }
}

/// Ingests that wait for their bytes: begun by a word, written to a file of the tree.
#[derive(Default)]
pub struct Waiting(Mutex<BTreeMap<(Arc<str>, String), Ingest>>);

/// So many may wait.
const WAITING: usize = 64;

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Arc<str>, String), Ingest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one.
    pub fn begin(&self, ns: &Namespace, args: &IngestArgs) -> Result<()> {
        if args.expected_size.is_none() {
            return fail!(Invalid, "--expected-size must be given: the last byte makes it a blob");
        }
        let key = (Arc::clone(ns.name()), args.reference.clone());
        if self.lock().len() >= WAITING {
            return fail!(Busy, "{WAITING} ingests wait for their bytes already");
        }
        if self.lock().contains_key(&key) {
            return fail!(Busy, "ingest {}: somebody has begun it", args.reference);
        }
        let Some(ingest) = Ingest::begin(ns, args)? else {
            return fail!(Exists, "ingest {}: there is a blob of this digest", args.reference);
        };
        match args.expected_size {
            Some(0) => ingest.commit().map(drop),
            _ => {
                self.lock().insert(key, ingest);
                Ok(())
            }
        }
    }

    /// Whether one waits.
    pub fn has(&self, ns: &Namespace, reference: &str) -> bool {
        self.lock().contains_key(&(Arc::clone(ns.name()), reference.to_owned()))
    }

    /// Takes one, to write it.
    pub fn take(&self, ns: &Namespace, reference: &str) -> Option<Ingest> {
        self.lock().remove(&(Arc::clone(ns.name()), reference.to_owned()))
    }
}
