//! `containers create`: an image, a snapshot and a record.

use super::Engine;
use super::progress::Progress;
use super::pull::LEASE;
use super::spec::build::{self, Target};
use super::spec::flags::{self, CreateArgs};
use super::unpack;
use crate::containerd::{
    Digest, Document, ImageConfig, ImageRecord, ManifestKind, Mount, Namespace, NewContainer, Platform, RuncOptions,
};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long undoing what was begun may take.
pub const UNDO: Duration = Duration::from_secs(30);

/// containerd's own runtime.
const RUNC: &str = "io.containerd.runc.v2";

/// The label that says which signal stops the container.
pub const STOP_SIGNAL: &str = "io.containerd.image.config.stop-signal";

/// What the words of the command name.
pub struct Words<'a> {
    pub image: Option<&'a str>,
    pub rootfs: Option<&'a str>,
    pub id: &'a str,
    pub command: &'a [String],
}

impl<'a> Words<'a> {
    /// `[Image|RootFS] ID [COMMAND] [ARG...]`, without the first where a file tells everything.
    pub fn of(args: &CreateArgs, words: &'a [String]) -> Result<Words<'a>> {
        let (reference, rest) = match (&args.config, words) {
            (Some(_), rest) => (None, rest),
            (None, [reference, rest @ ..]) => (Some(reference.as_str()), rest),
            (None, []) => return fail!(Invalid, "image ref must be provided"),
        };
        let Some((id, command)) = rest.split_first().filter(|(id, _)| !id.is_empty()) else {
            return fail!(Invalid, "container id must be provided");
        };
        let (image, rootfs) = if args.rootfs { (None, reference) } else { (reference, None) };
        if let Some(path) = rootfs.filter(|path| !path.starts_with('/')) {
            return fail!(Invalid, "--rootfs {path}: say the whole path; ctrfs does not stand where you stand");
        }
        Ok(Words { image, rootfs, id, command })
    }
}

/// The image of a container to be: its record, and the manifest for a platform.
pub(super) struct Image {
    record: std::sync::Arc<ImageRecord>,
    pub manifest: Digest,
    config: ImageConfig,
}

/// Makes a container of an image, or of a root filesystem, or as a file says. Nothing of it stays if it fails. `asking` is
/// told before containerd is asked for it.
pub fn create(
    engine: &Engine,
    ns: &Namespace,
    (args, words): (&CreateArgs, &Words<'_>),
    progress: &Progress,
    asking: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    args.check()?;
    let lease = ns.lease(LEASE)?;
    let held = lease.namespace();
    let image = match words.image {
        Some(name) => Some(image(held, name, args.platform.as_deref())?),
        None => None,
    };
    let mut new = NewContainer { id: words.id.into(), ..NewContainer::default() };
    (new.runtime, new.runtime_options) = runtime(args);
    new.sandbox = args.sandbox.clone().unwrap_or_default();
    new.labels = labels(args, image.as_ref());
    let Some(image) = &image else {
        new.spec = spec(engine, held, args, words, None, &[])?;
        asking()?;
        return held.create_container(&new);
    };
    new.image = image.record.name.to_string();
    new.snapshotter = unpack::snapshotter(ns, args.snapshotter.as_deref())?;
    new.snapshot_key = words.id.into();
    let chain = unpack::unpack(held, &image.manifest, &new.snapshotter, progress)?;
    wait::check()?;
    progress.say(format!("creating container {}", words.id));
    let snapshot = snapshot_labels(args)?;
    let mounts = held.prepare_snapshot(&new.snapshotter, words.id, &chain.to_string(), &snapshot)?;
    let made = spec(engine, held, args, words, Some(&image.config), &mounts).and_then(|spec| {
        new.spec = spec;
        asking()?;
        held.create_container(&new)
    });
    if made.is_err() {
        undo_snapshot(held, &new.snapshotter, words.id);
    }
    made
}

/// Removes a snapshot that was made on the way, also after the command was cancelled.
pub(super) fn undo_snapshot(held: &Namespace, snapshotter: &str, key: &str) {
    let undone = wait::until(Instant::now() + UNDO, || held.remove_snapshot(snapshotter, key));
    if let Err(error) = undone {
        tracing::warn!(%error, "a snapshot that is not needed any more stays until the garbage collection");
    }
}

fn spec(
    engine: &Engine,
    ns: &Namespace,
    args: &CreateArgs,
    words: &Words<'_>,
    image: Option<&ImageConfig>,
    mounts: &[Mount],
) -> Result<Vec<u8>> {
    let server = ns.client().server()?;
    let read = |path: &str| match words.rootfs {
        Some(rootfs) => (engine.read)(&[bind(rootfs)], path),
        None => (engine.read)(mounts, path),
    };
    let target = Target {
        version: &server.version,
        namespace: ns.name(),
        id: words.id,
        image,
        rootfs: words.rootfs,
        command: words.command,
        read: &read,
    };
    let spec = build::build(args, &target)?;
    serde_json::to_vec(&spec).map_err(|e| Error::caused(Kind::Io, "the spec cannot be written", e))
}

/// A directory, as a mount of it.
fn bind(path: &str) -> Mount {
    Mount { kind: "bind".into(), source: path.into(), target: String::new(), options: vec!["ro".into()] }
}

fn runtime(args: &CreateArgs) -> (String, Option<Document>) {
    if args.runtime == RUNC {
        let options = RuncOptions {
            binary_name: args.runc_binary.clone().unwrap_or_default(),
            root: args.runc_root.clone().unwrap_or_default(),
            systemd_cgroup: args.runc_systemd_cgroup,
            ..RuncOptions::default()
        };
        return (args.runtime.clone(), Some(options.document()));
    }
    let options = args.runtime_config_path.as_deref().filter(|path| !path.is_empty()).map(Document::runtime_config);
    (args.runtime.clone(), options)
}

/// An image's record and the manifest that runs here, or on the platform that was asked for.
pub(super) fn image(ns: &Namespace, name: &str, platform: Option<&str>) -> Result<Image> {
    let Some(record) = ns.image(name)? else {
        return fail!(
            NotFound,
            "image {name}: not found; `images pull {name}` brings it, and images/ has those that are here"
        );
    };
    let resolved = ns.resolve(&record.target)?;
    let manifest = match platform.filter(|platform| !platform.is_empty()) {
        None => resolved.host.and_then(|host| resolved.manifests.get(host)),
        Some(text) => {
            let wanted = Platform::parse(text)
                .ok_or_else(|| Error::new(Kind::Invalid, format!("--platform {text}: write os/architecture")))?;
            let images = resolved.manifests.iter().filter(|m| m.kind == ManifestKind::Image);
            let rank = |m: &crate::containerd::ManifestRef| m.platform.as_ref().and_then(|p| p.rank(&wanted));
            images.filter_map(|m| Some((rank(m)?, m))).min_by_key(|(rank, _)| *rank).map(|(_, m)| m)
        }
    };
    let Some(manifest) = manifest else {
        return fail!(NotFound, "image {name}: it has no manifest for this platform");
    };
    let digest = manifest.descriptor.digest.clone();
    let config = ns.manifest(&digest)?.image.clone();
    let config = config.ok_or_else(|| {
        Error::new(Kind::NotLocal, format!("image {name}: its config is not on this host, or it is no container image"))
    })?;
    Ok(Image { record, manifest: digest, config })
}

/// What an image says of itself, what its record says, what the command says; the later wins.
fn labels(args: &CreateArgs, image: Option<&Image>) -> BTreeMap<String, String> {
    // What containerd and its CRI act on is not for an image to say.
    let reserved = |key: &str| key.starts_with("io.cri-containerd") || key.starts_with("containerd.io/");
    let mut all = BTreeMap::new();
    if let Some(image) = image {
        let own = image.config.labels.iter().filter(|(key, _)| !reserved(key));
        let fits = |(key, value): &(&str, &str)| key.len() + value.len() <= 4096;
        all.extend(own.chain(image.record.labels.iter()).filter(fits).map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    all.extend(flags::labels(&args.label));
    if let Some(image) = image {
        let signal = if image.config.stop_signal.is_empty() { "SIGTERM" } else { &image.config.stop_signal };
        all.insert(STOP_SIGNAL.into(), signal.into());
    }
    all
}

fn snapshot_labels(args: &CreateArgs) -> Result<BTreeMap<String, String>> {
    let mut all: BTreeMap<String, String> = flags::labels(&args.snapshotter_label).collect();
    for (flag, words, name) in [("--uidmap", &args.uidmap, "uidmapping"), ("--gidmap", &args.gidmap, "gidmapping")] {
        let maps: Vec<String> = words
            .iter()
            .map(|word| build::id_map(flag, word).map(|[inside, host, size]| format!("{inside}:{host}:{size}")))
            .collect::<Result<_>>()?;
        if !maps.is_empty() {
            all.insert(format!("containerd.io/snapshot/{name}"), maps.join(","));
        }
    }
    Ok(all)
}
