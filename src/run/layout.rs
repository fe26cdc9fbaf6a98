//! An image as an OCI image layout: what `ctr images export --all-platforms` writes, of what is on this host
//! (containerd's `images/archive/exporter.go`; OCI image-spec, image-layout.md).
//!
//! What a manifest needs is exported whole or not at all: with a layer missing, nobody could use it. The index is
//! named where everything that it names is here, so that it comes back as it was; else its manifests are, and the index
//! itself, which would promise what is not here, is left out.

use super::archive::{Archive, Body, Member};
use super::reference;
use crate::containerd::{BlobInfo, Descriptor, Digest, Labels, ManifestKind, ManifestRef, Namespace, parse_index};
use crate::error::{Kind, Result};
use crate::fail;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The file that says what the directory is.
pub const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Blobs of one layout, at most: what shows it holds them all.
const BLOBS: usize = 100_000;

/// Above so many manifests one list of the blobs is cheaper than a question for each.
const ASK_EACH: usize = 64;

/// Labels that tell where a blob was pulled from.
const SOURCE: &str = "containerd.io/distribution.source";

/// A layout. The same objects on the host give the same bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// `index.json`.
    pub index: Vec<u8>,
    /// `manifest.json`, by which `docker load` knows the image.
    pub docker: Option<Vec<u8>>,
    /// The blobs, with their sizes.
    pub blobs: BTreeMap<Digest, u64>,
    /// All of it as a tar.
    pub archive: Archive,
    /// Of two layouts that have the same, all bytes are the same.
    pub fingerprint: Digest,
}

/// One image in Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Docker {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'static str>,
    manifests: Vec<Descriptor>,
}

/// The layout of the image `name`, whose target is `target`. None if nothing of it is whole on this host.
pub fn of_image(namespace: &Namespace, name: &str, target: &Descriptor) -> Result<Option<Layout>> {
    let resolved = usable(namespace.resolve(target))?;
    let Some(resolved) = resolved else { return Ok(None) };
    let mut gather = Gather::new(namespace, resolved.manifests.len())?;
    let mut here = Vec::new();
    for (number, named) in resolved.manifests.iter().enumerate() {
        if gather.manifest(named)? {
            here.push(number);
        }
    }
    // The host's comes first: it is the image, for whoever takes one.
    let is_image = |number: &&usize| resolved.manifests[**number].kind != ManifestKind::Attestation;
    let chosen = here.iter().find(|n| Some(**n) == resolved.host).or_else(|| here.iter().find(is_image));
    let Some(chosen) = chosen.map(|number| &resolved.manifests[*number]) else { return Ok(None) };
    let mut records = Vec::new();
    if !resolved.is_index || (here.len() == resolved.manifests.len() && gather.indexes(&resolved.indexes)?) {
        records.push(gather.named(target, name)?);
    } else {
        // Several manifests of one name: only one of them can have it.
        records.push(gather.named(&chosen.descriptor, name)?);
        let others = here.iter().filter(is_image).map(|number| &resolved.manifests[*number]);
        let others = others.filter(|other| other.descriptor.digest != chosen.descriptor.digest);
        records.extend(others.map(|other| other.descriptor.clone()));
        gather.only(&records)?;
    }
    let docker = gather.docker(chosen, Some(name))?;
    gather.finish(records, docker).map(Some)
}

/// The layout of one manifest, as the image `name` if it has a name. None if it is not whole on this host.
pub fn of_manifest(namespace: &Namespace, name: Option<&str>, manifest: &ManifestRef) -> Result<Option<Layout>> {
    let mut gather = Gather::new(namespace, 1)?;
    if !gather.manifest(manifest)? {
        return Ok(None);
    }
    let record = match name {
        Some(name) => gather.named(&manifest.descriptor, name)?,
        None => manifest.descriptor.clone(),
    };
    let docker = gather.docker(manifest, name)?;
    gather.finish(vec![record], docker).map(Some)
}

/// What is there and can be used; only a failure to ask is a failure.
fn usable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), Kind::WouldWait | Kind::Away | Kind::Deadline | Kind::Interrupted) => Err(e),
        Err(_) => Ok(None),
    }
}

/// What was found to be here so far.
struct Gather<'a> {
    namespace: &'a Namespace,
    all: Option<Arc<BTreeMap<Digest, BlobInfo>>>,
    blobs: BTreeMap<Digest, u64>,
    /// From containerd 1.7 on, an export says what its index is, and of a target where it was pulled from.
    recent: bool,
}

impl<'a> Gather<'a> {
    fn new(namespace: &'a Namespace, manifests: usize) -> Result<Gather<'a>> {
        let all = if manifests > ASK_EACH { Some(namespace.blobs()?) } else { None };
        let recent = !is_before_1_7(&namespace.client().server()?.version);
        Ok(Gather { namespace, all, blobs: BTreeMap::new(), recent })
    }

    fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        match &self.all {
            Some(all) => Ok(all.get(digest).cloned()),
            None => self.namespace.blob(digest),
        }
    }

    /// Notes a blob and all that it names, if all of that is here.
    fn manifest(&mut self, named: &ManifestRef) -> Result<bool> {
        let descriptor = &named.descriptor;
        let mut parts = vec![descriptor.digest.clone()];
        match usable(self.namespace.manifest(&descriptor.digest))? {
            Some(doc) => {
                let below = doc.config.iter().chain(doc.layers.iter().map(|layer| &layer.descriptor));
                parts.extend(below.map(|part| part.digest.clone()));
            }
            // What is no manifest names nothing: some indexes name layers.
            None if !descriptor.is_manifest() => {}
            None => return Ok(false),
        }
        let mut found = Vec::with_capacity(parts.len());
        for digest in parts {
            let Some(info) = self.blob(&digest)? else { return Ok(false) };
            found.push((digest, info.size));
        }
        self.blobs.extend(found);
        self.bounded()?;
        Ok(true)
    }

    /// Notes the indexes, if all of them are here and can be read.
    fn indexes(&mut self, indexes: &[(Descriptor, bool)]) -> Result<bool> {
        for (index, _) in indexes {
            let document = self.namespace.document(&index.digest).and_then(|bytes| parse_index(&bytes));
            let (Some(_), Some(info)) = (usable(document)?, self.blob(&index.digest)?) else { return Ok(false) };
            self.blobs.insert(index.digest.clone(), info.size);
        }
        self.bounded()?;
        Ok(true)
    }

    fn bounded(&self) -> Result<()> {
        if self.blobs.len() > BLOBS {
            return fail!(TooLong, "an image of more than {BLOBS} blobs");
        }
        Ok(())
    }

    /// Forgets what these manifests do not need: an index that is left out, what only it names.
    fn only(&mut self, manifests: &[Descriptor]) -> Result<()> {
        self.blobs.clear();
        for descriptor in manifests {
            let local = true;
            let (platform, kind) = (None, ManifestKind::Unknown);
            self.manifest(&ManifestRef { descriptor: descriptor.clone(), platform, local, kind })?;
        }
        Ok(())
    }

    fn named(&self, descriptor: &Descriptor, name: &str) -> Result<Descriptor> {
        let info = if self.recent { self.blob(&descriptor.digest)? } else { None };
        Ok(named(descriptor, name, info.as_ref()))
    }

    fn docker(&self, manifest: &ManifestRef, name: Option<&str>) -> Result<Option<Docker>> {
        let Some(doc) = usable(self.namespace.manifest(&manifest.descriptor.digest))? else { return Ok(None) };
        let Some(config) = &doc.config else { return Ok(None) };
        Ok(Some(docker(config, doc.layers.iter().map(|layer| &layer.descriptor), name)))
    }

    fn finish(self, manifests: Vec<Descriptor>, docker: Option<Docker>) -> Result<Layout> {
        let (index, docker, archive) = whole(manifests, docker.map(|one| vec![one]), &self.blobs, self.recent)?;
        let mut said = [&index[..], docker.as_deref().unwrap_or_default()].concat();
        for (digest, size) in &self.blobs {
            said.extend_from_slice(format!("\n{digest} {size}").as_bytes());
        }
        Ok(Layout { fingerprint: Digest::of(&said), index, docker, blobs: self.blobs, archive })
    }
}

/// The descriptor with the annotations that name it (`addNameAnnotation`) and, out of what is known of its blob, tell its
/// source (`copySourceLabels`).
pub(super) fn named(descriptor: &Descriptor, name: &str, info: Option<&BlobInfo>) -> Descriptor {
    let pairs = descriptor.annotations.iter();
    let mut annotations: BTreeMap<String, String> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    annotations.insert("io.containerd.image.name".into(), name.to_owned());
    annotations.insert("org.opencontainers.image.ref.name".into(), reference::tag(name));
    if let Some(info) = info {
        let sources = info.labels.iter().filter(|(key, _)| key.starts_with(SOURCE));
        annotations.extend(sources.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    Descriptor { annotations: annotations.iter().collect::<Labels>(), ..descriptor.clone() }
}

/// An image in Docker's `manifest.json`, by the names that Docker knows it by.
pub(super) fn docker<'a, 'b>(
    config: &Descriptor,
    layers: impl Iterator<Item = &'a Descriptor>,
    names: impl IntoIterator<Item = &'b str>,
) -> Docker {
    let layers: Vec<String> = layers.map(|layer| path(&layer.digest)).collect();
    let tags: Vec<String> = names.into_iter().filter_map(reference::familiar).collect();
    // What Go writes for a list without a member is null.
    let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Docker { config: path(&config.digest), repo_tags: list(tags), layers: list(layers) }
}

/// `index.json`, `manifest.json` and the archive of these manifests and blobs.
pub(super) fn whole(
    manifests: Vec<Descriptor>,
    docker: Option<Vec<Docker>>,
    blobs: &BTreeMap<Digest, u64>,
    recent: bool,
) -> Result<(Vec<u8>, Option<Vec<u8>>, Archive)> {
    let media_type = recent.then_some("application/vnd.oci.image.index.v1+json");
    let index = json(&Index { schema_version: 2, media_type, manifests })?;
    let docker = docker.map(|docker| json(&docker)).transpose()?;
    let archive = Archive::new(members(&index, docker.as_deref(), blobs));
    Ok((index, docker, archive))
}

/// Where a layout has a blob.
fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The members of the archive, in the order of their names as `writeTar` of containerd has them.
fn members(index: &[u8], docker: Option<&[u8]>, blobs: &BTreeMap<Digest, u64>) -> Vec<Member> {
    let text = |name: &str, mode, text: &[u8]| Member { name: name.into(), mode, body: Body::Text(text.to_vec()) };
    let directory = |name: String| Member { name, mode: 0o755, body: Body::Directory };
    let mut algorithms: Vec<&str> = blobs.keys().map(Digest::algorithm).collect();
    algorithms.dedup();
    let mut members = vec![directory("blobs/".into())];
    members.extend(algorithms.into_iter().map(|algorithm| directory(format!("blobs/{algorithm}/"))));
    let blob = |(digest, size): (&Digest, &u64)| Member {
        name: path(digest),
        mode: 0o444,
        body: Body::Blob(digest.clone(), *size),
    };
    members.extend(blobs.iter().map(blob));
    members.push(text("index.json", 0o644, index));
    members.extend(docker.map(|docker| text("manifest.json", 0o644, docker)));
    members.push(text("oci-layout", 0o444, OCI_LAYOUT));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members.dedup_by(|a, b| a.name == b.name);
    members
}

/// JSON as Go writes it: in strings, what could be markup is escaped.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let text = match serde_json::to_string(value) {
        Ok(text) => text,
        Err(error) => return fail!(Io, "{error}"),
    };
    let escapes =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    Ok(escapes.into_iter().fold(text, |text, (from, to)| text.replace(from, to)).into_bytes())
}

pub(super) fn is_before_1_7(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '~', '+', '-']).map_while(|n| n.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(1), Some(..=6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_in_the_order_of_their_names() {
        let blobs = [b"a", b"b", b"c"].map(|bytes| (Digest::of(bytes), 1));
        let long = Digest::parse(&format!("sha512:{}", "0a".repeat(64))).unwrap();
        let blobs = blobs.into_iter().chain([(long, 2)]).collect();
        let names: Vec<String> = members(b"{}", Some(b"[]"), &blobs).into_iter().map(|member| member.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(names.len(), 3 + 4 + 3);
        assert_eq!(&names[..2], ["blobs/", "blobs/sha256/"]);
        assert_eq!(&names[7..], ["index.json", "manifest.json", "oci-layout"]);
    }

    #[test]
    fn json_is_what_go_writes() {
        let docker = Docker { config: "a<b>&c".into(), repo_tags: None, layers: Some(vec!["x".into()]) };
        let text = String::from_utf8(json(&[docker]).unwrap()).unwrap();
        assert_eq!(text, r#"[{"Config":"a\u003cb\u003e\u0026c","RepoTags":null,"Layers":["x"]}]"#);
    }

    #[test]
    fn old_servers_do_not_tell_where_an_image_came_from() {
        assert!(is_before_1_7("1.6.20~ds1") && is_before_1_7("v1.6.0"));
        assert!(!is_before_1_7("1.7.24") && !is_before_1_7("v2.1.9+unknown") && !is_before_1_7("dev"));
    }
}
