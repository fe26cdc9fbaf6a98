//! `images convert`: the same image with its layers compressed in another way, or with OCI's media types.
//!
//! What is unpacked of a layer stays what it is, so the config stays, and a container of the one is a container of the other.

use super::image::known;
use super::import::{Blob, Out, decompressed, ours};
use super::layout::json;
use super::platforms::Wanted;
use super::progress::Progress;
use super::pull::LEASE;
use super::{held, parallel};
use crate::containerd::{Descriptor, Digest, LabelChanges, Labels, Namespace, NewContent, PIECE_BYTES, Replace};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use serde_json::{Map, Value};
use sha2::Digest as _;
use std::collections::HashMap;
use std::io::{Read as _, Write};
use std::sync::{Mutex, PoisonError};

/// Indexes in indexes, at most.
const DEPTH: u32 = 8;

/// So many layers at once.
const PARALLEL: usize = 2;

const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// `images convert`
#[derive(Debug, clap::Parser)]
#[command(name = "images convert", no_binary_name = true)]
pub struct ConvertArgs {
    /// Layers as plain archives
    #[arg(long, group = "how")]
    pub uncompress: bool,
    /// Layers in gzip
    #[arg(long, group = "how")]
    pub gzip: bool,
    /// Layers in zstd
    #[arg(long, group = "how")]
    pub zstd: bool,
    /// OCI's media types instead of Docker's
    #[arg(long)]
    pub oci: bool,
    /// What for, instead of this machine's platform
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Everything that an index names
    #[arg(long)]
    pub all_platforms: bool,
    /// The image, and what the new one is called
    pub names: Vec<String>,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    Gzip,
    Zstd,
}

impl How {
    /// What stands at the end of a layer's media type, OCI's and Docker's.
    fn suffixes(self) -> (&'static str, &'static str) {
        match self {
            How::Plain => ("", ""),
            How::Gzip => ("+gzip", ".gzip"),
            How::Zstd => ("+zstd", ".zstd"),
        }
    }

    /// The media type of the same layer compressed so; none if it is already.
    fn of(self, media_type: &str) -> Option<String> {
        let is_docker = media_type.starts_with("application/vnd.docker.");
        let bare = media_type.trim_end_matches("+gzip").trim_end_matches("+zstd");
        let bare = bare.trim_end_matches(".gzip").trim_end_matches(".zstd");
        let (oci, docker) = self.suffixes();
        let wanted = format!("{bare}{}", if is_docker { docker } else { oci });
        (wanted != media_type).then_some(wanted)
    }
}

/// Converts the image `source` to the image `target`.
pub fn convert(ns: &Namespace, source: &str, target: &str, args: &ConvertArgs, progress: &Progress) -> Result<()> {
    let image = known(ns, source)?;
    let how = match () {
        () if args.uncompress => Some(How::Plain),
        () if args.gzip => Some(How::Gzip),
        () if args.zstd => Some(How::Zstd),
        () => None,
    };
    if how.is_none() && !args.oci {
        return fail!(Invalid, "what to: --uncompress, --gzip, --zstd or --oci");
    }
    let lease = ns.lease(LEASE)?;
    let held = lease.namespace();
    let wanted = Wanted::new(&args.platform, args.all_platforms)?;
    let work = Convert { held, how, oci: args.oci, wanted, progress, layers: Mutex::default() };
    let new = work.any(&image.target, DEPTH)?.unwrap_or_else(|| image.target.clone());
    let labels: LabelChanges = image.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    held.put_image(target, &new, &labels, Replace::All)
}

struct Convert<'a> {
    held: &'a Namespace,
    how: Option<How>,
    oci: bool,
    wanted: Wanted,
    progress: &'a Progress,
    /// What became of layers, for those that stand in several manifests.
    layers: Mutex<HashMap<Digest, Descriptor>>,
}

impl Convert<'_> {
    /// What becomes of a descriptor; none if it stays.
    fn any(&self, old: &Descriptor, depth: u32) -> Result<Option<Descriptor>> {
        wait::check()?;
        let mut new = match old {
            _ if depth == 0 => return fail!(TooLong, "{}: indexes in {DEPTH} indexes", old.digest),
            old if old.is_index() || old.is_manifest() => self.document(old, depth)?,
            old if held::is_layer(&old.media_type) => self.layer(old)?,
            _ => None,
        };
        if old.media_type.starts_with("application/vnd.docker.") {
            if self.oci {
                let mut oci = new.unwrap_or_else(|| old.clone());
                oci.media_type = oci_type(&oci.media_type).into();
                new = Some(oci);
            } else if !new.as_ref().unwrap_or(old).annotations.is_empty() {
                // Docker's documents have none.
                new = Some(Descriptor { annotations: Labels::default(), ..new.unwrap_or_else(|| old.clone()) });
            }
        }
        Ok(new)
    }

    /// An index or a manifest whose parts are converted.
    fn document(&self, old: &Descriptor, depth: u32) -> Result<Option<Descriptor>> {
        let bytes = self.held.document(&old.digest)?;
        let bad = |e: serde_json::Error| Error::new(Kind::Corrupt, format!("{}: {e}", old.digest));
        let mut document: Map<String, Value> = serde_json::from_slice(&bytes).map_err(bad)?;
        let mut labels = self.labels(&old.digest)?;
        let mut modified = false;
        if let Some(Value::String(said)) = document.get_mut("mediaType")
            && self.oci
            && said.starts_with("application/vnd.docker.")
        {
            *said = oci_type(said);
            modified = true;
        }
        let key = if old.is_index() { "manifests" } else { "layers" };
        let mut parts = Vec::new();
        let named = match document.get(key) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        if key == "layers" {
            self.layers(&named)?;
        }
        for (number, value) in named.into_iter().enumerate() {
            let part: Descriptor = serde_json::from_value(value.clone()).map_err(bad)?;
            if !self.wanted.takes(part.platform.as_deref()) {
                labels.retain(|_, digest| *digest != part.digest.to_string());
                modified = true;
                continue;
            }
            let new = self.any(&part, depth - 1)?;
            if let Some(new) = &new {
                labels.retain(|_, digest| *digest != part.digest.to_string());
                let letter = if key == "layers" { 'l' } else { 'm' };
                labels.insert(format!("containerd.io/gc.ref.content.{letter}.{number}"), new.digest.to_string());
                modified = true;
            }
            parts.push(merged(value, new.as_ref()).map_err(bad)?);
        }
        if let Some(config) = document.get("config").cloned() {
            let part: Descriptor = serde_json::from_value(config.clone()).map_err(bad)?;
            if let Some(new) = self.any(&part, depth - 1)? {
                modified = true;
                document.insert("config".into(), merged(config, Some(&new)).map_err(bad)?);
            }
        }
        if !modified {
            return Ok(None);
        }
        document.insert(key.into(), Value::Array(parts));
        self.write(old, document, &labels).map(Some)
    }

    fn write(&self, old: &Descriptor, document: Map<String, Value>, labels: &LabelChanges) -> Result<Descriptor> {
        let bytes = json(&ordered(document, DOCUMENT))?;
        let digest = Digest::of(&bytes);
        self.held.put_content(&format!("converter-write-json-{digest}"), &bytes, labels)?;
        Ok(Descriptor { digest, size: bytes.len() as u64, ..old.clone() })
    }

    fn labels(&self, digest: &Digest) -> Result<LabelChanges> {
        let info = self.held.blob(digest)?;
        let labels = info.iter().flat_map(|info| info.labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
        Ok(labels.collect())
    }

    /// Converts the layers of a manifest, some at once.
    fn layers(&self, named: &[Value]) -> Result<()> {
        let layers = named.iter().filter_map(|value| serde_json::from_value::<Descriptor>(value.clone()).ok());
        let mut layers: Vec<Descriptor> = layers.filter(|layer| held::is_layer(&layer.media_type)).collect();
        layers.sort_by(|a, b| a.digest.cmp(&b.digest));
        layers.dedup_by(|a, b| a.digest == b.digest);
        parallel::each(layers, PARALLEL, |layer| self.layer(layer).map(drop))
    }

    fn layer(&self, old: &Descriptor) -> Result<Option<Descriptor>> {
        let Some(how) = self.how else { return Ok(None) };
        let Some(media_type) = how.of(&old.media_type) else { return Ok(None) };
        if old.media_type.contains("+encrypted") {
            return fail!(Unsupported, "{}: the layer is encrypted", old.digest);
        }
        let known = || self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(new) = known().get(&old.digest) {
            return Ok(Some(new.clone()));
        }
        self.progress.say(format!("converting {}", old.digest));
        self.progress.expect(old.size);
        let (digest, size) = self.recompress(old, how)?;
        let new = Descriptor { media_type: media_type.into(), digest, size, ..old.clone() };
        known().insert(old.digest.clone(), new.clone());
        Ok(Some(new))
    }

    /// Writes a layer compressed in another way; its digest and size.
    fn recompress(&self, old: &Descriptor, how: How) -> Result<(Digest, u64)> {
        let reference = format!("convert-{how:?}-from-{}", old.digest);
        let content = NewContent { reference: &reference, size: None, digest: None };
        let Some(mut writer) = self.held.write_content(content)? else {
            return fail!(Io, "{}: cannot be written", old.digest);
        };
        writer.restart();
        let out = Out { writer, size: 0 };
        let mut encoder = match how {
            How::Plain => Encoder::Plain(out),
            How::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
            How::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(out, 0).map_err(ours)?),
        };
        let mut blob = Blob::new(self.held, &old.digest)?;
        let mut reader = decompressed(&mut blob)?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            wait::check()?;
            match reader.read(&mut buffer).map_err(ours)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    encoder.write_all(&buffer[..count]).map_err(ours)?;
                }
            }
        }
        let out = encoder.finish().map_err(ours)?;
        let diff_id = Digest::sha256(hasher.finalize().into()).to_string();
        let mut labels = self.labels(&old.digest)?;
        labels.remove(UNCOMPRESSED);
        if how != How::Plain {
            labels.insert(UNCOMPRESSED.into(), diff_id.clone());
        }
        let size = out.size;
        let digest = out.writer.commit(&labels)?;
        self.held.label_blob(&old.digest, &LabelChanges::from([(UNCOMPRESSED.to_owned(), diff_id)]))?;
        self.progress.add(old.size);
        Ok((digest, size))
    }
}

enum Encoder {
    Plain(Out),
    Gzip(flate2::write::GzEncoder<Out>),
    Zstd(zstd::stream::write::Encoder<'static, Out>),
}

impl Encoder {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Encoder::Plain(out) => out.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<Out> {
        match self {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// The order in which Go writes the fields of documents and of descriptors.
const DOCUMENT: &[&str] =
    &["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"];
const DESCRIPTOR: &[&str] = &["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];

fn ordered(mut map: Map<String, Value>, order: &[&str]) -> Map<String, Value> {
    let mut sorted = Map::new();
    for key in order {
        sorted.extend(map.shift_remove_entry(*key));
    }
    sorted.extend(map);
    sorted
}

/// A descriptor as it stands in a document, with what became of it.
fn merged(old: Value, new: Option<&Descriptor>) -> std::result::Result<Value, serde_json::Error> {
    let Value::Object(mut map) = old else { return Ok(old) };
    if let Some(new) = new {
        if new.annotations.is_empty() {
            map.shift_remove("annotations");
        }
        if let Value::Object(fields) = serde_json::to_value(new)? {
            map.extend(fields.into_iter().filter(|(key, _)| key != "platform"));
        }
    }
    Ok(Value::Object(ordered(map, DESCRIPTOR)))
}

/// OCI's name of one of Docker's types.
fn oci_type(docker: &str) -> String {
    let layer = |rest: &str| {
        let (kind, rest) = match rest.strip_prefix("foreign.") {
            Some(rest) => ("nondistributable.v1.tar", rest),
            None => ("v1.tar", rest),
        };
        let compression = rest.strip_prefix("diff.tar").unwrap_or_default().replace('.', "+");
        format!("application/vnd.oci.image.layer.{kind}{compression}")
    };
    match docker {
        "application/vnd.docker.distribution.manifest.list.v2+json" => "application/vnd.oci.image.index.v1+json".into(),
        "application/vnd.docker.distribution.manifest.v2+json" => "application/vnd.oci.image.manifest.v1+json".into(),
        "application/vnd.docker.container.image.v1+json" => "application/vnd.oci.image.config.v1+json".into(),
        other => match other.strip_prefix("application/vnd.docker.image.rootfs.") {
            Some(rest) => layer(rest),
            None => other.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_follow_the_compression() {
        let (oci, docker) = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar");
        assert_eq!(How::Plain.of(&format!("{oci}+gzip")).as_deref(), Some(oci));
        assert_eq!(How::Plain.of(oci), None);
        assert_eq!(How::Zstd.of(&format!("{oci}+gzip")), Some(format!("{oci}+zstd")));
        assert_eq!(How::Gzip.of(docker), Some(format!("{docker}.gzip")));
        assert_eq!(How::Gzip.of(&format!("{docker}.gzip")), None);
        assert_eq!(oci_type(&format!("{docker}.gzip")), format!("{oci}+gzip"));
        assert_eq!(oci_type(docker), oci);
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(oci_type(foreign), "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    }
}
