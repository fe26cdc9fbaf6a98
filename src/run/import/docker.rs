//! Docker's archives: `manifest.json` names configs and layers, and the manifests are made here, byte for byte as containerd
//! makes them.

use super::{Files, names};
use crate::containerd::{Descriptor, Labels, Namespace, NewContent, PIECE_BYTES, parse_config};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";
const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Tells a blob from what it was compressed.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// One image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    #[serde(default)]
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// The manifests of an archive, one for each name.
pub fn manifests(held: &Namespace, saved: &[Saved], files: &Files, compress: bool) -> Result<Vec<Descriptor>> {
    let mut all = Vec::new();
    for image in saved {
        wait::check()?;
        let Some(config) = files.blob(&image.config, CONFIG) else {
            return fail!(Corrupt, "the config {:?} is not in the archive", image.config);
        };
        let layers = layers(held, image.layers.as_deref().unwrap_or_default(), files, compress)?;
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config: &config, layers: &layers };
        let bytes = crate::run::layout::json(&manifest)?;
        let digest = crate::containerd::Digest::of(&bytes);
        held.put_content(&format!("manifest-{digest}"), &bytes, &BTreeMap::new())?;
        let platform = parse_config(&held.document(&config.digest)?)?.platform.normal();
        let made = Descriptor {
            media_type: MANIFEST.into(),
            digest,
            size: bytes.len() as u64,
            annotations: Labels::default(),
            platform: Some(platform).filter(|p| !p.is_empty()).map(Into::into),
            artifact_type: None,
        };
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        if tags.is_empty() {
            all.push(made.clone());
        }
        for tag in tags {
            let annotations = names::annotations(tag)?.into_iter().collect();
            all.push(Descriptor { annotations, ..made.clone() });
        }
    }
    Ok(all)
}

/// The layers with what they are. Where a layer's compressed form is known already, that is taken.
fn layers(held: &Namespace, paths: &[String], files: &Files, compress: bool) -> Result<Vec<Descriptor>> {
    let mut layers = Vec::new();
    for path in paths {
        let Some(layer) = files.blob(path, "") else {
            return fail!(Corrupt, "the layer {path:?} is not in the archive");
        };
        layers.push(layer);
    }
    let known = held.blobs()?;
    for (digest, info) in known.iter() {
        let Some(of) = info.labels.get(UNCOMPRESSED) else { continue };
        // Of a layer that stands there twice, containerd looks at the last.
        if let Some(layer) =
            layers.iter_mut().rev().find(|layer| layer.media_type.is_empty() && layer.digest.to_string() == of)
        {
            let head = head(held, digest, 10)?;
            let media_type = if head.len() < 10 || !is_compressed(&head) { PLAIN } else { GZIP };
            *layer =
                Descriptor { digest: digest.clone(), size: info.size, media_type: media_type.into(), ..layer.clone() };
        }
    }
    for layer in layers.iter_mut().filter(|layer| layer.media_type.is_empty()) {
        let is_compressed = is_compressed(&head(held, &layer.digest, 10)?);
        if compress && !is_compressed {
            *layer = compressed(held, layer)?;
        }
        layer.media_type = if is_compressed || compress { GZIP } else { PLAIN }.into();
    }
    Ok(layers)
}

fn head(held: &Namespace, digest: &crate::containerd::Digest, length: usize) -> Result<Bytes> {
    held.blob_reader(digest)?.read_at(0, length)
}

fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 0x08]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// The layer in gzip.
fn compressed(held: &Namespace, layer: &Descriptor) -> Result<Descriptor> {
    let reference = format!("compress-blob-{}", layer.digest);
    let content = NewContent { reference: &reference, size: None, digest: None };
    let Some(writer) = held.write_content(content)? else { return fail!(Io, "{}: cannot be written", layer.digest) };
    let mut out = Out { writer, size: 0 };
    out.writer.restart();
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    let mut reader = Blob::new(held, &layer.digest)?;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        wait::check()?;
        match reader.read(&mut buffer).map_err(ours)? {
            0 => break,
            count => encoder.write_all(&buffer[..count]).map_err(ours)?,
        }
    }
    let out = encoder.finish().map_err(ours)?;
    let labels = BTreeMap::from([(UNCOMPRESSED.to_owned(), layer.digest.to_string())]);
    let (size, digest) = (out.size, out.writer.commit(&labels)?);
    Ok(Descriptor { digest, size, ..layer.clone() })
}

/// A blob, read from its beginning to its end.
pub struct Blob {
    reader: crate::containerd::BlobReader,
    at: u64,
}

impl Blob {
    pub fn new(ns: &Namespace, digest: &crate::containerd::Digest) -> Result<Blob> {
        Ok(Blob { reader: ns.blob_reader(digest)?, at: 0 })
    }
}

impl std::io::Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.reader.read_at(self.at, buffer.len()).map_err(std::io::Error::other)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

/// Where compressed bytes go.
pub struct Out {
    pub writer: crate::containerd::ContentWriter,
    pub size: u64,
}

impl std::io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes).map_err(std::io::Error::other)?;
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One of our errors that went through somebody else's reader or writer, or what they say themselves.
pub fn ours(error: std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(ours) => ours.clone(),
        None => Error::caused(Kind::Corrupt, error.to_string(), error),
    }
}

/// A descriptor of a file in the archive.
pub fn descriptor(digest: &crate::containerd::Digest, size: u64, media_type: &str) -> Descriptor {
    let (annotations, platform, artifact_type) = (Labels::default(), None, None);
    Descriptor { media_type: media_type.into(), digest: digest.clone(), size, annotations, platform, artifact_type }
}
