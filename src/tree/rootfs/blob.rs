//! A layer's blob, as the rootfs engine reads it: the file in containerd's content store where that is visible here,
//! else over containerd's API.

use crate::containerd::{BlobReader, Digest, Namespace};
use crate::error::Result;
use crate::layers::Blob;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// The blob of a layer.
pub struct LayerBlob {
    namespace: Namespace,
    digest: Digest,
    name: String,
    size: u64,
    /// Kept open: a blob that is collected stays readable.
    file: Option<File>,
    reader: OnceLock<BlobReader>,
}

impl LayerBlob {
    /// The blob of this digest, if the namespace has it.
    pub fn open(namespace: &Namespace, digest: &Digest) -> Result<Option<LayerBlob>> {
        let Some(info) = namespace.blob(digest)? else { return Ok(None) };
        let file = namespace.blob_file(digest, &info)?;
        let (namespace, digest) = (namespace.clone(), digest.clone());
        Ok(Some(LayerBlob {
            name: digest.to_string(),
            namespace,
            digest,
            size: info.size,
            file,
            reader: OnceLock::new(),
        }))
    }
}

impl Blob for LayerBlob {
    fn digest(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if let Some(file) = &self.file {
            return Ok(file.read_exact_at(buf, offset)?);
        }
        let reader = match self.reader.get() {
            Some(reader) => reader,
            None => {
                let reader = self.namespace.blob_reader(&self.digest)?;
                self.reader.get_or_init(|| reader)
            }
        };
        reader.read_exact_at(offset, buf)
    }
}
