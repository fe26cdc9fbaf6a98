//! Making images: blobs, manifests and indexes, right and wrong ones, as a tar of an OCI layout or straight over gRPC.

use super::Containerd;
use super::tar::Tar;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer: its blob as stored, and the digest of the archive in it.
pub struct Layer {
    pub media_type: String,
    pub blob: Vec<u8>,
    pub diff_id: String,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Layer {
        Layer { media_type: LAYER.into(), diff_id: digest(&tar), blob: tar }
    }

    pub fn zstd(tar: Vec<u8>) -> Layer {
        let blob = zstd::encode_all(&tar[..], 3).unwrap();
        Layer { media_type: format!("{LAYER}+zstd"), diff_id: digest(&tar), blob }
    }

    pub fn gzip(tar: Vec<u8>) -> Layer {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &tar).unwrap();
        let gzip = std::process::Command::new("gzip").args(["-nc"]).arg(file.path()).output().unwrap();
        Layer { media_type: format!("{LAYER}+gzip"), diff_id: digest(&tar), blob: gzip.stdout }
    }
}

/// Blobs that belong together.
#[derive(Default)]
pub struct Layout {
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    pub fn new() -> Layout {
        Layout::default()
    }

    /// Adds a blob; its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let descriptor = json!({"mediaType": media_type, "digest": digest(&bytes), "size": bytes.len()});
        self.blobs.insert(digest(&bytes), bytes);
        descriptor
    }

    /// Adds a document; its descriptor.
    pub fn json(&mut self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, serde_json::to_vec_pretty(value).unwrap())
    }

    /// A layout of this manifest and what it names alone.
    pub fn only(&self, manifest: &Value) -> Layout {
        let document: Value = serde_json::from_slice(&self.blobs[manifest["digest"].as_str().unwrap()]).unwrap();
        let named = document["layers"].as_array().unwrap().iter().chain([manifest, &document["config"]]);
        let digests = named.map(|descriptor| descriptor["digest"].as_str().unwrap());
        Layout { blobs: digests.map(|digest| (digest.to_owned(), self.blobs[digest].clone())).collect() }
    }

    /// Takes a blob out again, as if it had never been pulled.
    pub fn forget(&mut self, descriptor: &Value) {
        self.blobs.remove(descriptor["digest"].as_str().unwrap()).expect("no such blob");
    }

    /// Adds an image of one platform (`os/architecture`); its manifest's descriptor, with the platform.
    pub fn image(&mut self, platform: &str, layers: &[Layer]) -> Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        let history: Vec<Value> = (0..layers.len())
            .map(|n| json!({"created": "2024-05-06T07:08:09Z", "created_by": format!("step {n}")}))
            .chain([json!({"created": "2024-05-06T07:08:10Z", "created_by": "CMD", "empty_layer": true})])
            .collect();
        let config = json!({
            "created": "2024-05-06T07:08:10Z", "os": os, "architecture": architecture,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>()},
            "history": history,
        });
        let config = self.json(CONFIG, &config);
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(&layer.media_type, layer.blob.clone())).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.json(MANIFEST, &manifest);
        descriptor["platform"] = json!({"os": os, "architecture": architecture});
        descriptor
    }

    /// Adds an index of manifests; its descriptor.
    pub fn index(&mut self, manifests: &[Value]) -> Value {
        self.json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
    }

    /// A tar of the OCI layout, whose index names `target` as `tag`.
    pub fn save(&self, target: &Value, tag: &str, path: &Path) {
        self.save_all(&[(tag.to_owned(), target.clone())], path);
    }

    /// The same with several images.
    pub fn save_all(&self, targets: &[(String, Value)], path: &Path) {
        let named = |(tag, target): &(String, Value)| {
            let mut named = target.clone();
            named["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
            named
        };
        self.save_index(&targets.iter().map(named).collect::<Vec<_>>(), path);
    }

    /// The same with manifests that are annotated already.
    pub fn save_index(&self, manifests: &[Value], path: &Path) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        let mut tar = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#)
            .file("index.json", index.to_string())
            .dir("blobs/")
            .dir("blobs/sha256/");
        for (digest, bytes) in &self.blobs {
            tar = tar.file(&format!("blobs/{}", digest.replace(':', "/")), bytes);
        }
        std::fs::write(path, tar.finish()).unwrap();
    }

    /// Puts the blobs into a containerd, each kept by a label of its own, and names `target` as an image. For what an
    /// import would refuse or mend: missing blobs, strange names, documents that are none.
    pub fn store(&self, containerd: &Containerd, namespace: &str, name: &str, target: &Value) {
        for (digest, bytes) in &self.blobs {
            containerd.rpc().write_blob(namespace, digest, bytes);
        }
        containerd.rpc().create_image(namespace, name, target);
    }
}

/// The hexadecimal part of a descriptor's digest.
pub fn hex_of(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap()
}
