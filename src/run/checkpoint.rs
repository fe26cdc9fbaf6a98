//! `containers checkpoint` and `containers restore`: a container as an image, whose index names what it is made of, as
//! `ctr` writes and reads it. Only the state of its processes (`--task`, `--live`) needs CRIU on containerd's host.

use super::Engine;
use super::control::paused;
use super::create;
use super::diff::{self, Difference};
use super::progress::Progress;
use super::pull::LEASE;
use super::task::{self, How, IoArgs};
use super::unpack;
use crate::containerd::{
    CheckpointOptions, ContainerRecord, Descriptor, Digest, Document, IndexDoc, LabelChanges, Namespace, NewContainer,
    Platform, parse_index,
};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a checkpoint consists of, beside an image and a layer.
const STATE: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const SPEC: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";
const OPTIONS: &str = "application/vnd.containerd.container.checkpoint.options.v1+proto";
const RUNTIME_OPTIONS: &str = "application/vnd.containerd.container.checkpoint.runtime.options+proto";

/// What its index says of the container.
const IMAGE_NAME: &str = "org.opencontainers.image.ref.name";
const RUNTIME: &str = "io.containerd.checkpoint.runtime";
const SNAPSHOTTER: &str = "io.containerd.checkpoint.snapshotter";

/// `containers checkpoint`
#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct CheckpointArgs {
    /// Include what the container changed
    #[arg(long)]
    pub rw: bool,
    /// Include its image
    #[arg(long)]
    pub image: bool,
    /// Include the state of its processes
    #[arg(long)]
    pub task: bool,
    /// ID IMAGE
    pub words: Vec<String>,
}

/// `containers restore`
#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct RestoreArgs {
    /// With what the container had changed
    #[arg(long)]
    pub rw: bool,
    /// With the state of its processes
    #[arg(long)]
    pub live: bool,
    #[command(flatten)]
    pub io: IoArgs,
    /// ID IMAGE
    pub words: Vec<String>,
}

/// The id and the image that a command names.
fn named(words: &[String]) -> Result<(&str, &str)> {
    match words {
        [] => fail!(Invalid, "container id must be provided"),
        [_] => fail!(Invalid, "checkpoint name must be provided"),
        [id, reference] => Ok((id, reference)),
        [_, _, more, ..] => fail!(Invalid, "{more}: one container and one image are named"),
    }
}

/// Makes an image of a container.
pub fn checkpoint(ns: &Namespace, args: &CheckpointArgs, progress: &Progress) -> Result<()> {
    let (id, reference) = named(&args.words)?;
    let record = task::record(ns, id)?;
    let task = ns.live_task(id)?;
    if args.task && task.is_none() {
        return fail!(NotFound, "task {id}: not found; --task needs one");
    }
    if ns.image(reference)?.is_some() {
        return fail!(Exists, "image {reference}: already exists");
    }
    let lease = ns.lease(LEASE)?;
    let parts = Parts { held: lease.namespace(), record: &record };
    let work = || {
        let mut held = None;
        let mut index: Vec<Descriptor> = parts.runtime_options()?.into_iter().collect();
        if args.image {
            index.push(parts.image()?);
        }
        if args.rw {
            progress.say("writing what it changed");
            let (layer, difference) = parts.changes()?;
            index.push(layer);
            held = Some(difference);
        }
        progress.say("writing its state");
        // The state of its processes comes with the spec; `ctr` writes no spec without it, and then cannot restore.
        index.extend(if args.task { parts.state()? } else { vec![parts.spec()?] });
        let target = parts.index(&index)?;
        // From now on the index holds what it names.
        drop(held);
        ns.create_image(reference, &target, &LabelChanges::new())
    };
    paused(ns, id, task.as_deref(), work)
}

/// What a checkpoint is made of, written under a lease.
struct Parts<'a> {
    held: &'a Namespace,
    record: &'a ContainerRecord,
}

impl Parts<'_> {
    fn put(&self, media_type: &str, what: &str, bytes: &[u8]) -> Result<Descriptor> {
        let reference = format!("{}{what}", self.record.id);
        let digest = self.held.put_content(&reference, bytes, &LabelChanges::new())?;
        Ok(descriptor(media_type, digest, bytes.len() as u64))
    }

    fn runtime_options(&self) -> Result<Option<Descriptor>> {
        let options = self.held.container_info(&self.record.id)?.runtime_options;
        options.map(|options| self.put(RUNTIME_OPTIONS, "-runtime-options", &options.to_any())).transpose()
    }

    fn image(&self) -> Result<Descriptor> {
        let name = &self.record.image;
        match self.held.image(name)? {
            Some(image) => Ok(image.target.clone()),
            None => fail!(NotFound, "image {name}: not found; leave --image out"),
        }
    }

    /// The layer that the container's own snapshot is.
    fn changes(&self) -> Result<(Descriptor, Difference)> {
        let (snapshotter, key) = (&self.record.snapshotter, &self.record.snapshot_key);
        if key.is_empty() {
            return fail!(NotFound, "container {}: it has no snapshot; leave --rw out", self.record.id);
        }
        let reference = format!("checkpoint-rw-{key}");
        let made = diff::make(self.held, snapshotter, (key, None), LAYER, Some(&reference))?;
        Ok((descriptor(LAYER, made.reader.digest().clone(), made.reader.size()), made))
    }

    fn spec(&self) -> Result<Descriptor> {
        // Not in containerd's own bytes: it would refuse to write them again for a state of the processes.
        self.put(SPEC, "-checkpoint-config", &self.held.container_spec(&self.record.id)?.to_any_by_value())
    }

    /// What CRIU and containerd write of its processes.
    fn state(&self) -> Result<Vec<Descriptor>> {
        let options = CheckpointOptions { file_locks: true, ..CheckpointOptions::default() }.document();
        let made = self.held.checkpoint_task(&self.record.id, Some(&options))?;
        let here = |part: Descriptor| Descriptor { platform: Some(Platform::host().into()), ..part };
        let mut parts: Vec<Descriptor> = made.into_iter().map(here).collect();
        parts.push(self.put(OPTIONS, "-checkpoint-options", &options.to_any())?);
        Ok(parts)
    }

    fn index(&self, parts: &[Descriptor]) -> Result<Descriptor> {
        let record = self.record;
        let index = json!({"schemaVersion": 2, "manifests": parts, "annotations": {
            (RUNTIME): &*record.runtime, (SNAPSHOTTER): &*record.snapshotter, (IMAGE_NAME): &*record.image,
        }});
        let bytes = index.to_string().into_bytes();
        let labels = parts.iter().enumerate().map(|(n, part)| (held_by(n), part.digest.to_string())).collect();
        let digest = self.held.put_content(&format!("{}index", record.id), &bytes, &labels)?;
        Ok(Descriptor { platform: None, ..descriptor(INDEX, digest, bytes.len() as u64) })
    }
}

fn held_by(number: usize) -> String {
    format!("containerd.io/gc.ref.content.{number}")
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    let platform = Some(Platform::host().into());
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        annotations: Default::default(),
        platform,
        artifact_type: None,
    }
}

/// A checkpoint, read.
struct Checkpoint {
    name: String,
    index: IndexDoc,
}

impl Checkpoint {
    fn read(ns: &Namespace, name: &str) -> Result<Checkpoint> {
        let Some(image) = ns.image(name)? else { return fail!(NotFound, "image {name}: not found") };
        let index = parse_index(&ns.document(&image.target.digest)?).map_err(|e| e.context(format!("image {name}")))?;
        Ok(Checkpoint { name: name.to_owned(), index })
    }

    fn says(&self, key: &str) -> Result<&str> {
        match self.index.annotations.get(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value),
            None => fail!(Invalid, "image {}: it is no checkpoint of a container: {key} is missing", self.name),
        }
    }

    fn part(&self, media_type: &str) -> Option<&Descriptor> {
        self.index.manifests.iter().find(|part| &*part.media_type == media_type)
    }

    fn needs(&self, media_type: &str, why: &str) -> Result<&Descriptor> {
        let missing = || Error::new(Kind::Invalid, format!("image {}: {why}", self.name));
        self.part(media_type).ok_or_else(missing)
    }
}

/// Makes a container of a checkpoint, and starts it.
pub fn restore(engine: &Arc<Engine>, ns: &Namespace, args: &RestoreArgs, progress: &Progress) -> Result<()> {
    let (id, reference) = named(&args.words)?;
    let checkpoint = Checkpoint::read(ns, reference)?;
    let live = match args.live {
        true => Some(checkpoint.needs(STATE, "it holds no state of processes: it was made without --task")?.clone()),
        false => None,
    };
    let spec = checkpoint.needs(SPEC, "it holds no spec: ctr writes it only with --task")?;
    let spec = Document::from_any(&ns.document(&spec.digest)?)?;
    let rw = match args.rw {
        true => Some(checkpoint.needs(LAYER, "it holds nothing that the container changed: made without --rw")?),
        false => None,
    };
    let options = checkpoint.part(RUNTIME_OPTIONS);
    let runtime_options = options.map(|part| Document::from_any(&ns.document(&part.digest)?)).transpose()?;
    let new = NewContainer {
        id: id.into(),
        image: checkpoint.says(IMAGE_NAME)?.into(),
        runtime: checkpoint.says(RUNTIME)?.into(),
        runtime_options,
        spec: spec.value,
        snapshotter: checkpoint.says(SNAPSHOTTER)?.into(),
        snapshot_key: id.into(),
        ..NewContainer::default()
    };
    let mut note = engine.store.begin(ns, id)?;
    if let Err(error) = make(ns, &new, rw, progress, &mut || note.creating()) {
        note.failed(&error);
        return Err(error);
    }
    progress.say(format!("starting container {id}"));
    let how = How { io: &args.io, no_pivot: false, rm: false, checkpoint: live };
    task::start_with(engine, ns, id, how, note).map(drop)
}

/// The snapshot and the record of a container that is restored.
fn make(
    ns: &Namespace,
    new: &NewContainer,
    rw: Option<&Descriptor>,
    progress: &Progress,
    asking: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let lease = ns.lease(LEASE)?;
    let held = lease.namespace();
    let image = create::image(held, &new.image, None)?;
    let chain = unpack::unpack(held, &image.manifest, &new.snapshotter, progress)?;
    wait::check()?;
    let mounts = held.prepare_snapshot(&new.snapshotter, &new.id, &chain.to_string(), &BTreeMap::new())?;
    let made = match rw {
        Some(layer) => held.apply_diff(layer, &mounts).map(drop),
        None => Ok(()),
    };
    let made = made.and_then(|()| asking()).and_then(|()| held.create_container(new));
    if made.is_err() {
        create::undo_snapshot(held, &new.snapshotter, &new.id);
    }
    made
}
