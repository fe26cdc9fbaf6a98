//! Images as names: tagged, renamed, deleted, labelled, unpacked.

use super::platforms::Wanted;
use super::progress::Progress;
use super::pull::LEASE;
use super::{fetch, unpack};
use crate::containerd::{Descriptor, ImageRecord, LabelChanges, Namespace, Replace};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::sync::Arc;

/// `images tag`, `images rename`
#[derive(Debug, clap::Parser)]
#[command(name = "images tag", no_binary_name = true)]
pub struct TagArgs {
    /// Take a name that is taken
    #[arg(long)]
    pub force: bool,
    #[arg(long, hide = true)]
    local: bool,
    #[arg(long, hide = true)]
    skip_reference_check: bool,
    /// The names
    pub names: Vec<String>,
}

/// `images delete`
#[derive(Debug, clap::Parser)]
#[command(name = "images delete", no_binary_name = true)]
pub struct DeleteArgs {
    /// Wait until what nothing else refers to is gone
    #[arg(long)]
    pub sync: bool,
    /// The images
    pub names: Vec<String>,
}

/// `images prune`
#[derive(Debug, clap::Parser)]
#[command(name = "images prune", no_binary_name = true)]
pub struct PruneArgs {
    /// All images of which no container is
    #[arg(long)]
    pub all: bool,
}

/// `images label`
#[derive(Debug, clap::Parser)]
#[command(name = "images label", no_binary_name = true)]
pub struct LabelArgs {
    /// Take all other labels away
    #[arg(long, short)]
    pub replace_all: bool,
    /// The image
    pub name: String,
    /// KEY=VALUE, or KEY= to take one away
    pub labels: Vec<String>,
}

/// `images unpack`
#[derive(Debug, clap::Parser)]
#[command(name = "images unpack", no_binary_name = true)]
pub struct UnpackArgs {
    /// Unpack into this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// What for, instead of this machine's platform
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// The images
    pub names: Vec<String>,
}

/// The image of this name; `NotFound` if there is none.
pub fn known(ns: &Namespace, name: &str) -> Result<Arc<ImageRecord>> {
    let record = ns.image(name)?;
    record.ok_or_else(|| Error::new(Kind::NotFound, format!("image {name}: there is none of this name")))
}

/// Gives an image further names.
pub fn tag(ns: &Namespace, source: &str, targets: &[String], force: bool) -> Result<()> {
    if targets.is_empty() {
        return fail!(Invalid, "a new name must be given");
    }
    let image = known(ns, source)?;
    targets.iter().try_for_each(|target| name(ns, &image, target, force))
}

/// Gives an image another name instead of its own.
pub fn rename(ns: &Namespace, source: &str, target: &str, force: bool) -> Result<()> {
    if source == target {
        return fail!(Already, "image {source}: that is its name");
    }
    let image = known(ns, source)?;
    name(ns, &image, target, force)?;
    ns.delete_image(source, false)
}

fn name(ns: &Namespace, image: &ImageRecord, target: &str, force: bool) -> Result<()> {
    if target.is_empty() {
        return fail!(Invalid, "an empty name");
    }
    let labels: LabelChanges = image.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    match force {
        true => ns.put_image(target, &image.target, &labels, Replace::All),
        false => ns.create_image(target, &image.target, &labels),
    }
}

/// Deletes images; with `sync` waits with the last until everything of them is gone.
pub fn delete(ns: &Namespace, names: &[String], sync: bool) -> Result<()> {
    let Some((last, others)) = names.split_last() else { return fail!(Invalid, "an image must be given") };
    others.iter().try_for_each(|name| ns.delete_image(name, false))?;
    ns.delete_image(last, sync)
}

/// Deletes all images that no container was made from, by their names: as `ctr` has it, another name of an image that is
/// used goes.
pub fn prune(ns: &Namespace, args: &PruneArgs, progress: &Progress) -> Result<()> {
    if !args.all {
        return fail!(Invalid, "images prune: needs --all, which deletes every image that no container was made from");
    }
    let names: Vec<Arc<str>> = ns.images()?.keys().cloned().collect();
    let mut count = 0;
    for name in names {
        wait::check()?;
        // Asked each time: a container may have been made from it meanwhile.
        if ns.containers()?.values().any(|container| *container.image == *name) {
            continue;
        }
        match ns.delete_image(&name, false) {
            // Somebody else was faster.
            Err(error) if error.kind() == Kind::NotFound => {}
            deleted => deleted?,
        }
        count += 1;
        progress.say(format!("deleted {count} images, {name} last"));
    }
    Ok(())
}

/// Sets and clears labels of an image.
pub fn label(ns: &Namespace, args: &LabelArgs) -> Result<()> {
    let mut labels = fetch::label_args(&args.labels)?;
    let image = known(ns, &args.name)?;
    if args.replace_all {
        labels.retain(|_, value| !value.is_empty());
        return ns.update_image(&args.name, &image.target, &labels, Replace::All);
    }
    if labels.is_empty() {
        return fail!(Invalid, "a label, as KEY=VALUE, must be given");
    }
    ns.label_image(&args.name, &labels)
}

/// Unpacks an image.
pub fn unpack(ns: &Namespace, name: &str, args: &UnpackArgs, progress: &Progress) -> Result<()> {
    let target = known(ns, name)?.target.clone();
    let wanted = Wanted::new(&args.platform, false)?;
    let snapshotter = unpack::snapshotter(ns, args.snapshotter.as_deref())?;
    let lease = ns.lease(LEASE)?;
    let held = lease.namespace();
    let chosen = manifests(held, &target, &wanted)?;
    if chosen.is_empty() {
        return fail!(NotFound, "image {name}: nothing in it is for {}", wanted.names());
    }
    for manifest in chosen {
        wait::check()?;
        unpack::unpack(held, &manifest.digest, &snapshotter, progress)?;
    }
    Ok(())
}

/// The manifests of a target that are wanted and here; of a target that is no index that one, whatever it is for.
pub fn manifests(ns: &Namespace, target: &Descriptor, wanted: &Wanted) -> Result<Vec<Descriptor>> {
    let resolved = ns.resolve(target)?;
    let here = resolved.manifests.iter().filter(|manifest| manifest.local);
    let here: Vec<Descriptor> =
        here.map(|m| Descriptor { platform: m.platform.clone(), ..m.descriptor.clone() }).collect();
    match resolved.is_index {
        true => Ok(wanted.best(&here).into_iter().cloned().collect()),
        false => Ok(here),
    }
}
