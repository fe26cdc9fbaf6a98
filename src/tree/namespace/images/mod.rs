//! `/namespaces/<namespace>/images/<reference>/`: the path below `images/` is the reference, split at `/`.
//!
//! A reference may be the first part of another one (`a` and `a/b`): its directory shows both. The whole reference as
//! one component, without a colon, leads to the same directory ([`name::alias`]).

mod image;
pub mod oci;

use super::{Ns, links};
use crate::containerd::{ImageRecord, Map};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::row::{each, link as link_row, merge, unlisted};
use crate::node::{Dir, Each, Lifetime, Member, Object, One, Row, Target};
use crate::tree::name::{self, Decoded};
use crate::tree::tag;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use image::{IMAGE, Image};

pub static IMAGES: Dir<Ns> = Dir {
    doc: "Images by reference.",
    rows: &[
        each(
            "<reference>",
            "The first part of some references, or a whole one.",
            &Each {
                list: |ns: &Ns| children(&Reference::top(ns)),
                find: |ns: &Ns, component| child(&Reference::top(ns), component),
                member: Member::Dir(&REFERENCE),
            },
        ),
        unlisted(each(
            "<encoded reference>",
            "The whole reference in one component without a colon: `docker.io%2Flibrary%2Fnginx%3A1.27`.",
            &Each { list: |_| Ok(Vec::new()), find: find_alias, member: Member::File(&ALIAS) },
        )),
        unlisted(each(
            "<encoded reference>",
            "The same, where the reference cannot be reached as a path.",
            &Each { list: |_| Ok(Vec::new()), find: find_shadowed, member: Member::Dir(&IMAGE) },
        )),
    ],
};

static REFERENCE: Dir<Reference> = Dir {
    doc: "The image of this reference, if there is one, and the next parts of longer references.",
    rows: &[
        merge("The image of this reference.", &One { get: image_at, table: &IMAGE }),
        each(
            "<reference>",
            "The next part of longer references.",
            &Each { list: children, find: child, member: Member::Dir(&REFERENCE) },
        ),
    ],
};

static ALIAS: Row<Image> = link_row("<encoded reference>", "The image.", |image| {
    let path = format!("{}/images/{}", name::join(["namespaces", image.ns.name()]), name::path(&image.name));
    Ok(Some(Target::Tree(path)))
});

/// A part of some references, from their beginning to a `/` or the end.
#[derive(Clone)]
struct Reference {
    ns: Ns,
    /// `None` is `images/` itself: the reference that is empty is another thing.
    prefix: Option<Arc<str>>,
    /// Tells an image from a successor of the same name.
    created: u64,
}

impl Reference {
    fn top(ns: &Ns) -> Reference {
        Reference { ns: ns.clone(), prefix: None, created: 0 }
    }

    /// What every longer reference begins with.
    fn start(&self) -> String {
        self.prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}/"))
    }

    /// The image of this very reference, which may be only the first part of some.
    fn image(&self) -> Result<Image> {
        let whole = || self.prefix.as_deref().unwrap_or("images");
        image_at(self)?
            .ok_or_else(|| Error::new(Kind::Policy, format!("{}: not an image, but a part of some", whole())))
    }

    fn below(&self, images: &Map<Arc<ImageRecord>>, part: &str) -> Reference {
        let prefix: Arc<str> = format!("{}{part}", self.start()).into();
        let created = images.get(&prefix).map_or(0, |record| crate::tree::text::nanos(record.created));
        Reference { ns: self.ns.clone(), prefix: Some(prefix), created }
    }
}

impl Object for Reference {
    fn component(&self) -> Cow<'_, str> {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        name::encode(prefix.rsplit('/').next().unwrap_or_default()).into()
    }
    fn incarnation(&self) -> u64 {
        self.created
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        match image_at(self)? {
            Some(image) => image.modified(),
            None => Ok(None),
        }
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        image_at(self)?.map_or_else(|| Ok(Vec::new()), |image| image.labels())
    }
    fn tag(&self) -> Option<u64> {
        self.prefix.as_ref().map(|prefix| tag::image(self.ns.name(), prefix))
    }
    fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.image()?.set_label(key, value)
    }
    fn delete(&self) -> Result<()> {
        self.image()?.delete()
    }
    fn is_renamed(&self) -> bool {
        self.prefix.is_some()
    }
    fn rename(&self, component: &str) -> Result<()> {
        let image = self.image()?;
        let directory = image.name.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
        match name::decode(component) {
            Some(Decoded::Name(part)) if !part.contains('/') => image.rename_to(&format!("{directory}{part}")),
            _ => fail!(Invalid, "{component}: not how the last part of a reference is spelled here"),
        }
    }
    fn group(&self) -> Option<u64> {
        // Whether it is an image, too, changes: it stays one of them.
        self.prefix.as_ref().map(|_| tag::images(self.ns.name()))
    }
    fn lifetime(&self) -> Lifetime {
        if self.ns.namespace.is_heard() { Lifetime::Told } else { Lifetime::Second }
    }
    fn contents(&self) -> Lifetime {
        match image_at(self) {
            Ok(Some(image)) => image.contents(),
            Ok(None) => self.lifetime(),
            Err(_) => Lifetime::Second,
        }
    }
}

fn image_at(reference: &Reference) -> Result<Option<Image>> {
    let Some(prefix) = &reference.prefix else { return Ok(None) };
    let record = reference.ns.namespace.image(prefix)?;
    Ok(record.map(|record| Image::new(&reference.ns, &record)))
}

/// The next parts of the references that begin with this one, each once.
fn parts(images: &Map<Arc<ImageRecord>>, start: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    let mut from: Bound<String> = Bound::Included(start.to_owned());
    loop {
        let lower = from.as_ref().map(String::as_str);
        let next = images.range::<str, _>((lower, Bound::Unbounded)).next();
        let Some(rest) = next.and_then(|(name, _)| name.strip_prefix(start)) else { return parts };
        match rest.split_once('/') {
            // All that begins with this part and a slash is one entry: go on behind it, for `0` follows `/`.
            Some((part, _)) => {
                from = Bound::Included(format!("{start}{part}0"));
                parts.insert(part.to_owned());
            }
            None => {
                from = Bound::Excluded(format!("{start}{rest}"));
                parts.insert(rest.to_owned());
            }
        }
    }
}

fn children(reference: &Reference) -> Result<Vec<Reference>> {
    let images = reference.ns.namespace.images()?;
    Ok(parts(&images, &reference.start()).iter().map(|part| reference.below(&images, part)).collect())
}

fn child(reference: &Reference, component: &str) -> Result<Option<Reference>> {
    let images = reference.ns.namespace.images()?;
    let start = reference.start();
    let part = match name::decode(component) {
        Some(Decoded::Name(part)) if !part.contains('/') => part,
        Some(Decoded::Hashed) => {
            let part = parts(&images, &start).into_iter().find(|part| name::encode(part) == component);
            let Some(part) = part else { return Ok(None) };
            part
        }
        _ => return Ok(None),
    };
    let whole = format!("{start}{part}");
    let longer = format!("{whole}/");
    let mut after = images.range::<str, _>((Bound::Included(longer.as_str()), Bound::Unbounded));
    let leads_on = after.next().is_some_and(|(name, _)| name.starts_with(&longer));
    let there = leads_on || images.contains_key(whole.as_str());
    Ok(there.then(|| reference.below(&images, &part)))
}

/// Whether a file of another image stands where the path of this reference would lead.
fn is_shadowed(images: &Map<Arc<ImageRecord>>, reference: &str) -> bool {
    reference.match_indices('/').any(|(at, _)| {
        let next = reference[at + 1..].split('/').next().unwrap_or_default();
        let own = IMAGE.rows.iter().any(|row| row.name == name::encode(next));
        own && images.contains_key(&reference[..at])
    })
}

fn aliased(ns: &Ns, component: &str) -> Result<Option<(Image, bool)>> {
    let images = ns.namespace.images()?;
    let record = match name::unalias(component) {
        Some(Decoded::Name(reference)) => images.get(reference.as_str()),
        Some(Decoded::Hashed) => images.values().find(|record| name::alias(&record.name) == component),
        None => None,
    };
    Ok(record.map(|record| (Image::new(ns, record), is_shadowed(&images, &record.name))))
}

fn find_alias(ns: &Ns, component: &str) -> Result<Option<Image>> {
    Ok(aliased(ns, component)?.and_then(|(image, shadowed)| (!shadowed).then_some(image)))
}

fn find_shadowed(ns: &Ns, component: &str) -> Result<Option<Image>> {
    Ok(aliased(ns, component)?.and_then(|(image, shadowed)| shadowed.then_some(image)))
}

/// The path of an image, if there is one of this name.
pub fn link(ns: &Ns, reference: &str) -> Result<Option<Target>> {
    let images = ns.namespace.images()?;
    if !images.contains_key(reference) {
        return Ok(None);
    }
    let below = if is_shadowed(&images, reference) { name::alias(reference) } else { name::path(reference) };
    Ok(Some(Target::Tree(format!("{}/images/{below}", name::join(["namespaces", ns.name()])))))
}

/// The images that name a manifest, as links called by their one-component names.
pub fn naming(ns: &Ns, manifest: &crate::containerd::Digest) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for name in links::naming(ns)?.get(manifest).into_iter().flatten() {
        links::note_manifests(ns, name, std::iter::once(manifest));
        images.extend(ns.namespace.image(name)?.map(|record| Image::new(ns, &record)));
    }
    Ok(images)
}

/// A link to an image, in a directory that lists some by their one-component names.
pub static LINK: Row<Image> = link_row("<encoded reference>", "An image.", |image| link(&image.ns, &image.name));
