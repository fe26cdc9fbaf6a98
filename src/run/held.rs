//! The labels by which one blob holds another: without them the garbage collection takes what an image is made of.

use crate::containerd::{Descriptor, LabelChanges, Namespace};
use crate::error::Result;

/// Where a blob was pulled from; the host's name stands behind it.
pub const SOURCE: &str = "containerd.io/distribution.source.";

/// The longest key and value together that containerd takes.
const LABEL_BYTES: usize = 4096;

const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.";

/// Whether a blob of this type is a layer.
pub fn is_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.") || media_type.starts_with(DOCKER_LAYER)
}

fn is_config(child: &Descriptor) -> bool {
    const CHECKPOINT: [&str; 2] = [
        "application/vnd.containerd.container.criu.checkpoint.criu.tar",
        "application/vnd.containerd.container.checkpoint.config.v1+proto",
    ];
    child.is_config() || CHECKPOINT.contains(&&*child.media_type)
}

/// The labels of a parent that hold its children (containerd's `ChildGCLabels`); without those for layers, if these are
/// to go once they are unpacked.
pub fn labels(children: &[Descriptor], with_layers: bool) -> LabelChanges {
    let (mut all, mut layers, mut manifests, mut others, mut configs) = (LabelChanges::new(), 0, 0, 0, 0);
    for child in children {
        let (kind, number) = match child {
            child if is_config(child) => ("config", &mut configs),
            child if child.is_manifest() => ("m.", &mut manifests),
            child if is_layer(&child.media_type) => ("l.", &mut layers),
            _ => ("", &mut others),
        };
        if kind == "l." && !with_layers {
            continue;
        }
        let key = match (kind, *number) {
            ("config", 0) => "containerd.io/gc.ref.content.config".to_owned(),
            (kind, number) => format!("containerd.io/gc.ref.content.{kind}{number}"),
        };
        *number += 1;
        all.insert(key, child.digest.to_string());
    }
    all
}

/// The label that tells a blob's source: what is there already, and `repository`. None if it would be too long.
pub fn source(ns: &Namespace, blob: &Descriptor, host: &str, repository: &str) -> Result<Option<(String, String)>> {
    let key = format!("{SOURCE}{host}");
    let known = ns.blob(&blob.digest)?;
    let known = known.as_ref().and_then(|info| info.labels.get(&key)).unwrap_or_default();
    let mut repositories: Vec<&str> = known.split(',').chain([repository]).filter(|r| !r.is_empty()).collect();
    repositories.sort_unstable();
    repositories.dedup();
    let value = repositories.join(",");
    Ok((key.len() + value.len() <= LABEL_BYTES).then_some((key, value)))
}

/// The name under which a blob is written, as `ctr` makes it: two who pull the same write it once.
pub fn reference(blob: &Descriptor) -> String {
    let kind = match blob {
        blob if blob.is_manifest() => "manifest",
        blob if blob.is_index() => "index",
        blob if is_layer(&blob.media_type) => "layer",
        blob if is_config(blob) => "config",
        _ => "unknown",
    };
    format!("{kind}-{}", blob.digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::Digest;

    fn child(media_type: &str, content: &[u8]) -> Descriptor {
        let (annotations, platform, artifact_type) = (Default::default(), None, None);
        Descriptor {
            media_type: media_type.into(),
            digest: Digest::of(content),
            size: 1,
            annotations,
            platform,
            artifact_type,
        }
    }

    #[test]
    fn children_are_held_as_containerd_holds_them() {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let children = [
            child("application/vnd.oci.image.config.v1+json", b"c"),
            child(layer, b"1"),
            child(layer, b"2"),
            child("application/vnd.oci.image.manifest.v1+json", b"m"),
            child("application/vnd.oci.image.index.v1+json", b"i"),
        ];
        let keys = |with_layers| labels(&children, with_layers).into_keys().collect::<Vec<_>>();
        let prefixed =
            |names: &[&str]| names.iter().map(|n| format!("containerd.io/gc.ref.content.{n}")).collect::<Vec<_>>();
        assert_eq!(keys(true), prefixed(&["0", "config", "l.0", "l.1", "m.0"]));
        assert_eq!(keys(false), prefixed(&["0", "config", "m.0"]));
        assert_eq!(reference(&children[1]), format!("layer-{}", Digest::of(b"1")));
    }
}
