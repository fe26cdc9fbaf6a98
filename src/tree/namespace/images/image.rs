//! `/namespaces/<namespace>/images/<reference>/`: one image.

use super::oci;
use crate::containerd::{ImageRecord, ManifestKind, ManifestRef, Resolved};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::row::{bytes, ctl, dir, each, link as link_row, live, outcome, text, told, via, when};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Lifetime, Member, Object, One, Row, TOLD, Target};
use crate::tree::name::{self, Decoded};
use crate::tree::namespace::{Ns, blobs, containers, links, manifest, verbs};
use crate::tree::text::{self as write, Text, line, usable};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

pub static IMAGE: Dir<Image> = Dir {
    doc: "An image: a name, what it points to, and the manifests that this names.",
    rows: &[
        text("name", "The whole reference.", |image| line(&image.name)),
        text("digest", "Digest of the target.", |image| line(&image.record()?.target.digest)),
        text("media_type", "Media type of the target.", |image| line(&image.record()?.target.media_type)),
        text("created", "When the name was made.", |image| write::time(image.record()?.created)),
        text("updated", "When it was last pointed elsewhere or labelled.", |image| {
            write::time(image.record()?.updated)
        }),
        text("labels", "Its labels, `key=value` a line.", |image| write::labels(&image.record()?.labels)),
        // Of the record and of what is here, and of no snapshot: so `check` and `usage` are not told.
        told(live(
            "size",
            "Bytes of manifest, config and layers for this platform, as `ctr images ls` counts.",
            |image| line(image.ns.namespace.image_size(&image.record()?.target)?),
        )),
        told(live("local_size", "Bytes of everything it names that are on this host.", |image| {
            line(image.ns.namespace.image_local_size(&image.record()?.target)?)
        })),
        live("check", "What is here of what it needs, as `ctr images check` tells.", check),
        live("usage", "Each snapshot that it is unpacked to, with its bytes and inodes (`ctr images usage`).", usage),
        text("descriptor.json", "The target's descriptor.", |image| write::json(&json!(image.record()?.target))),
        bytes("index.json", "The index, byte for byte, where the target is one.", |image| {
            let target = image.record()?.target.clone();
            let index =
                target.media_type.ends_with(".index.v1+json") || target.media_type.ends_with(".manifest.list.v2+json");
            if index { blobs::document(&image.ns, &target.digest) } else { Ok(None) }
        }),
        dir("manifests", &MANIFESTS),
        dir("platforms", &PLATFORMS),
        link_row("manifest.json", "The manifest for this platform, else the only one, else the first.", |image| {
            image.host("manifest.json")
        }),
        link_row("config.json", "Its config.", |image| image.host("config.json")),
        link_row("history", "Its build steps.", |image| image.host("history")),
        link_row("layers", "Its layers.", |image| image.host("layers")),
        link_row("rootfs", "Its root filesystem.", |image| image.host("rootfs")),
        link_row("hidden", "What upper layers of it deleted or replaced.", |image| image.host("hidden")),
        when(|image| Ok(image.layout()?.is_some()), dir("oci", &oci::OCI)),
        bytes("oci.tar", "The same as one archive: what `ctr images export --all-platforms` writes of it.", oci::tar),
        via(
            "containers",
            CONTAINERS.doc,
            &One { get: |image| Ok(Some(Users(Image::clone(image)))), table: &CONTAINERS },
        ),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Image> = Verbs::new(&[&[
    verbs::label(),
    verb("tag", "[--force] TARGET…", "Gives it further names.", |image: &Image, command| {
        verbs::images::tag(&image.ns, &image.name, command)
    }),
    verb("rename", "[--force] TARGET", "Gives it another name.", |image: &Image, command| {
        verbs::images::rename(&image.ns, &image.name, command)
    }),
    verb("delete", "[--sync]", "Deletes it.", |image: &Image, command| {
        verbs::images::delete(&image.ns, &image.name, command)
    })
    .or(&["rm", "remove"]),
    verb("push", "[FLAG…] [REMOTE]", "Pushes it to a registry.", |image: &Image, command| {
        verbs::images::push(&image.ns, &image.name, command)
    })
    .secret(verbs::images::SECRET),
    verb("export", "[FLAG…] FILE", "Writes it into an archive on this host.", |image: &Image, command| {
        verbs::images::export(&image.ns, &image.name, command)
    }),
    verb(
        "convert",
        "--uncompress|--gzip|--zstd|--oci TARGET",
        "Makes the same image with other layers.",
        |image: &Image, command| verbs::images::convert(&image.ns, &image.name, command),
    ),
    verb("unpack", "[--snapshotter SN] [--platform P]", "Unpacks it.", |image: &Image, command| {
        verbs::images::unpack(&image.ns, &image.name, command)
    }),
]]);

static MANIFESTS: Dir<Image> = Dir {
    doc: "Links to every manifest that the target names, here or not.",
    rows: &[each(
        "<hex>",
        "A manifest.",
        &Each { list: manifests, find: find_manifest, member: Member::File(&MANIFEST) },
    )],
};

static MANIFEST: Row<manifest::Manifest> = link_row("<hex>", "A manifest.", |manifest| Ok(Some(manifest.path(""))));

static PLATFORMS: Dir<Image> = Dir {
    doc: "Links to the manifests of images, by platform.",
    rows: &[each(
        "<os>-<arch>[-<variant>]",
        "The manifest for this platform.",
        &Each { list: platforms, find: find_platform, member: Member::File(&PLATFORM) },
    )],
};

static PLATFORM: Row<ForPlatform> =
    link_row("<platform>", "The manifest for this platform.", |platform| Ok(Some(platform.manifest.path(""))));

static CONTAINERS: Dir<Users> = Dir {
    doc: "Links to the containers that were made from it.",
    rows: &[each(
        "<id>",
        "A container.",
        &Each {
            list: |Users(image): &Users| containers::made_from(&image.ns, &image.name),
            find: |Users(image): &Users, component| {
                let made = containers::made_from(&image.ns, &image.name)?;
                Ok(made.into_iter().find(|container| *container.id == *component))
            },
            member: Member::File(&containers::LINK),
        },
    )],
};

/// An image.
#[derive(Clone)]
pub struct Image {
    pub ns: Ns,
    pub name: Arc<str>,
    /// Tells it from a successor of the same name.
    created: u64,
}

/// A manifest of an image, by its platform.
#[derive(Clone)]
struct ForPlatform {
    name: String,
    manifest: manifest::Manifest,
}

impl Image {
    pub fn new(ns: &Ns, record: &ImageRecord) -> Image {
        Image { ns: ns.clone(), name: Arc::clone(&record.name), created: write::nanos(record.created) }
    }

    pub(super) fn record(&self) -> Result<Arc<ImageRecord>> {
        let record = self.ns.namespace.image(&self.name)?;
        let same = record.filter(|record| write::nanos(record.created) == self.created);
        same.ok_or_else(|| Error::new(Kind::NotFound, format!("image {}: gone", self.name)))
    }

    /// What the target names; nothing if its document is not here or is damaged.
    fn resolved(&self) -> Result<Option<Arc<Resolved>>> {
        let record = self.record()?;
        let resolved = usable(self.ns.namespace.resolve(&record.target))?;
        if let Some(resolved) = &resolved {
            let digests = resolved.manifests.iter().map(|manifest| &manifest.descriptor.digest);
            links::note_manifests(&self.ns, &self.name, digests);
        }
        Ok(resolved)
    }

    /// Gives it another name; one that is taken stays.
    pub(super) fn rename_to(&self, reference: &str) -> Result<()> {
        self.record()?;
        crate::run::image::rename(&self.ns.namespace, &self.name, reference, false)
    }

    /// A file of the manifest for the host's platform, if it is there.
    fn host(&self, file: &str) -> Result<Option<Target>> {
        let Some(resolved) = self.resolved()? else { return Ok(None) };
        let Some(host) = resolved.host.and_then(|host| resolved.manifests.get(host)) else { return Ok(None) };
        let manifest = manifest::Manifest::new(&self.ns, host);
        Ok(manifest.has(file)?.then(|| manifest.path(file)))
    }
}

impl Object for Image {
    fn component(&self) -> Cow<'_, str> {
        name::alias(&self.name).into()
    }
    fn incarnation(&self) -> u64 {
        self.created
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        let record = self.record()?;
        Ok(record.updated.or(record.created))
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        Ok(write::pairs(&self.record()?.labels))
    }
    fn tag(&self) -> Option<u64> {
        Some(crate::tree::tag::image(self.ns.name(), &self.name))
    }
    fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.record()?;
        self.ns.namespace.label_image(&self.name, &verbs::one_label(key, value))
    }
    fn delete(&self) -> Result<()> {
        self.record()?;
        self.ns.namespace.delete_image(&self.name, false)
    }
    fn is_renamed(&self) -> bool {
        true
    }
    fn rename(&self, component: &str) -> Result<()> {
        match name::unalias(component) {
            Some(Decoded::Name(reference)) => self.rename_to(&reference),
            _ => fail!(Invalid, "{component}: not how a reference is spelled as one name"),
        }
    }
    fn group(&self) -> Option<u64> {
        Some(crate::tree::tag::images(self.ns.name()))
    }
    fn lifetime(&self) -> Lifetime {
        if self.ns.namespace.is_heard() { Lifetime::Told } else { Lifetime::Second }
    }
    /// Of its record events tell, of blobs the namespace; of snapshots nobody, so none may matter: where a layer is not
    /// here, its root filesystem comes from them.
    fn contents(&self) -> Lifetime {
        let whole = || self.resolved().is_ok_and(|resolved| resolved.is_some_and(|resolved| resolved.whole));
        if self.ns.namespace.promises_presence(TOLD) && whole() { Lifetime::Told } else { Lifetime::Second }
    }
}

/// The containers that were made from an image: no event that names the image tells of them, so any of a container does.
#[derive(Clone)]
struct Users(Image);

impl Object for Users {
    fn component(&self) -> Cow<'_, str> {
        "containers".into()
    }
    fn incarnation(&self) -> u64 {
        self.0.incarnation()
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        self.0.modified()
    }
    fn members(&self) -> Option<u64> {
        Some(crate::tree::tag::users(self.0.ns.name()))
    }
    fn lifetime(&self) -> Lifetime {
        self.0.lifetime()
    }
    fn contents(&self) -> Lifetime {
        self.0.lifetime()
    }
}

impl Object for ForPlatform {
    fn component(&self) -> Cow<'_, str> {
        self.name.as_str().into()
    }
}

fn manifests(image: &Image) -> Result<Vec<manifest::Manifest>> {
    let Some(resolved) = image.resolved()? else { return Ok(Vec::new()) };
    Ok(resolved.manifests.iter().map(|named| manifest::Manifest::new(&image.ns, named)).collect())
}

fn find_manifest(image: &Image, component: &str) -> Result<Option<manifest::Manifest>> {
    Ok(manifests(image)?.into_iter().find(|manifest| manifest.component() == component))
}

/// The name of a platform as one component.
fn platform_name(named: &ManifestRef) -> Option<String> {
    let platform = named.platform.as_ref().filter(|_| named.kind == ManifestKind::Image)?;
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    let name = parts.into_iter().filter(|part| !part.is_empty()).map(|part| part.as_str()).collect::<Vec<_>>();
    (!name.is_empty()).then(|| name::encode(&name.join("-")))
}

fn platforms(image: &Image) -> Result<Vec<ForPlatform>> {
    let Some(resolved) = image.resolved()? else { return Ok(Vec::new()) };
    let mut platforms: Vec<ForPlatform> = Vec::new();
    for named in &resolved.manifests {
        let Some(name) = platform_name(named) else { continue };
        // Windows has several manifests for one platform, told apart by the version: the first is shown by name.
        if platforms.iter().all(|known| known.name != name) {
            platforms.push(ForPlatform { name, manifest: manifest::Manifest::new(&image.ns, named) });
        }
    }
    Ok(platforms)
}

fn find_platform(image: &Image, component: &str) -> Result<Option<ForPlatform>> {
    Ok(platforms(image)?.into_iter().find(|platform| platform.name == component))
}

/// The snapshotter that containers of a namespace use unless told otherwise (`ctr`'s own rule).
fn default_snapshotter(ns: &Ns) -> Result<String> {
    let labels = ns.namespace.labels()?;
    Ok(labels.get("containerd.io/defaults/snapshotter").unwrap_or("overlayfs").to_owned())
}

fn check(image: &Image) -> Text {
    let snapshotter = default_snapshotter(&image.ns)?;
    let check = image.ns.namespace.image_check(&image.record()?.target, &snapshotter)?;
    let missing: String = check.missing.iter().map(|m| format!("missing={} {}\n", m.digest, m.media_type)).collect();
    let text = format!(
        "status={}\nblobs={}/{}\nbytes={}/{}\nunpacked={}\n{missing}",
        check.status,
        check.present.len(),
        check.required.len(),
        check.present_size,
        check.required_size,
        check.unpacked,
    );
    Ok(Some(text.into_bytes()))
}

fn usage(image: &Image) -> Text {
    let snapshotter = default_snapshotter(&image.ns)?;
    let chain = image.ns.namespace.image_usage(&image.record()?.target, &snapshotter)?;
    let lines = chain.iter().map(|(key, usage)| format!("{key}\t{}\t{}\n", usage.size, usage.inodes));
    Ok(Some(format!("KEY\tSIZE\tINODES\n{}", lines.collect::<String>()).into_bytes()))
}
