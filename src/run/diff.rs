//! `snapshots diff`: what differs between two snapshots, as the archive of a layer. containerd makes a blob of it.

use super::export::save;
use super::fetch::label_args;
use super::progress::Progress;
use super::pull::LEASE;
use super::unpack;
use crate::containerd::{BlobReader, LeaseGuard, Mount, Namespace, SnapshotKind};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A layer's archive as it is.
pub const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// How long removing a view may take.
const CLEAN: Duration = Duration::from_secs(10);

/// `snapshots diff`
#[derive(Debug, clap::Parser)]
#[command(name = "snapshots diff", no_binary_name = true)]
pub struct DiffArgs {
    /// The snapshotter of both
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// How the archive is compressed, as the media type of a layer
    #[arg(long, value_name = "TYPE", default_value = "application/vnd.oci.image.layer.v1.tar+gzip")]
    pub media_type: String,
    /// What the content is called while it is written
    #[arg(long = "ref", value_name = "REF")]
    pub reference: Option<String>,
    /// Keep the blob
    #[arg(long)]
    pub keep: bool,
    /// Label the blob, where it is kept
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Write the archive into this file of the host
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The snapshot, which differs from its parent, or two of them
    pub keys: Vec<String>,
}

/// A difference, as a blob that is held as long as this is.
pub struct Difference {
    /// Its bytes.
    pub reader: BlobReader,
    _lease: LeaseGuard,
}

/// Carries `snapshots diff` out.
pub fn diff(ns: &Namespace, keys: &[String], args: &DiffArgs, progress: &Progress) -> Result<()> {
    let (key, other) = match keys {
        [key] => (key, None),
        [key, other] => (key, Some(other.as_str())),
        _ => return fail!(Invalid, "the key of a snapshot, or of two, must be given"),
    };
    if args.output.is_none() && !args.keep {
        return fail!(
            Invalid,
            "where to? --output FILE writes it on this host, --keep leaves it in blobs; diff.tar of the snapshot is read"
        );
    }
    let snapshotter = unpack::snapshotter(ns, args.snapshotter.as_deref())?;
    let mut labels = label_args(&args.label)?;
    progress.say(format!("comparing {key}"));
    let difference = make(ns, &snapshotter, (key, other), &args.media_type, args.reference.as_deref())?;
    if let Some(file) = &args.output {
        let reader = &difference.reader;
        progress.expect(reader.size());
        progress.say(format!("writing {}", file.display()));
        save(file, reader.size(), progress, |at, length| reader.read_at(at, length))?;
    }
    if args.keep {
        let now = jiff::Timestamp::try_from(SystemTime::now()).map(|t| t.to_string()).unwrap_or_default();
        labels.insert("containerd.io/gc.root".into(), now);
        ns.label_blob(difference.reader.digest(), &labels)?;
        progress.say(format!("kept {}", difference.reader.digest()));
    }
    Ok(())
}

/// What differs in the snapshot `key` from its parent or, where there is another one, in that from `key`.
pub fn make(
    ns: &Namespace,
    snapshotter: &str,
    (key, other): (&str, Option<&str>),
    media_type: &str,
    reference: Option<&str>,
) -> Result<Difference> {
    let lease = ns.lease(LEASE)?;
    let held = lease.namespace();
    let mut views = Views { held, snapshotter, keys: Vec::new() };
    let lower = match other {
        Some(_) => views.mounts(key)?,
        None => views.view(&known(held, snapshotter, key)?.1)?,
    };
    let upper = views.mounts(other.unwrap_or(key))?;
    wait::check()?;
    let unique = unique();
    let made = held.create_diff(&lower, &upper, media_type, reference.unwrap_or(&unique))?;
    drop(views);
    Ok(Difference { reader: held.blob_reader(&made.digest)?, _lease: lease })
}

/// The kind of a snapshot, and the parent that it has, which may be empty.
fn known(ns: &Namespace, snapshotter: &str, key: &str) -> Result<(SnapshotKind, String)> {
    match ns.snapshot(snapshotter, key)? {
        Some(record) => Ok((record.kind, record.parent.to_string())),
        None => fail!(NotFound, "{snapshotter} snapshot {key}: there is none of this key"),
    }
}

/// Views that are removed when this is dropped.
struct Views<'a> {
    held: &'a Namespace,
    snapshotter: &'a str,
    keys: Vec<String>,
}

impl Views<'_> {
    /// How a snapshot is mounted, by a view of it where it is committed.
    fn mounts(&mut self, key: &str) -> Result<Vec<Mount>> {
        match known(self.held, self.snapshotter, key)?.0 {
            SnapshotKind::Committed => self.view(key),
            _ => self.held.snapshot_mounts(self.snapshotter, key),
        }
    }

    fn view(&mut self, parent: &str) -> Result<Vec<Mount>> {
        let key = unique();
        // Remembered before, for the call is carried to its end also when nobody waits for it any more.
        self.keys.push(key.clone());
        self.held.view_snapshot(self.snapshotter, &key, parent, &BTreeMap::new())
    }
}

impl Drop for Views<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            let removed: Result<()> =
                wait::until(Instant::now() + CLEAN, || self.held.remove_snapshot(self.snapshotter, key));
            if let Err(error) = removed.or_else(|e: Error| if e.kind() == Kind::NotFound { Ok(()) } else { Err(e) }) {
                tracing::warn!(key, %error, "a view stays until its lease ends");
            }
        }
    }
}

/// A name that nobody else uses.
fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("ctrfs-diff-{}-{nanos}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
