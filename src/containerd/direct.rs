//! The content store's own files, where this host sees them.
//!
//! Where the store is, the introspection service tells. A file is only used for a blob that the namespace has, for all
//! namespaces share the files; it is opened for reading, and stays readable when the blob is collected.

use super::{BlobInfo, Digest, Namespace};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

/// Up to this length a file is read where it is asked for: that takes less than a change of threads.
pub(super) const INLINE_BYTES: u64 = 256 << 10;

impl Namespace {
    /// The file of a blob that the namespace has, `None` if the store is not visible here. A file whose length is not
    /// the one that containerd records is refused: containerd itself would serve it, cut short.
    pub fn blob_file(&self, digest: &Digest, info: &BlobInfo) -> Result<Option<File>> {
        let Some(root) = self.client().content_root()? else { return Ok(None) };
        let path = root.join("blobs").join(digest.algorithm()).join(digest.hex());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(None),
            Err(e) => return Err(Error::from(e).context(format!("blob {digest}"))),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        if metadata.len() != info.size {
            let (stored, recorded) = (metadata.len(), info.size);
            return fail!(Io, "blob {digest}: {stored} bytes are stored, but containerd records {recorded}");
        }
        Ok(Some(file))
    }

    /// All bytes of a document out of the store's file, not yet verified; `None` if the store is not visible here.
    pub(super) fn document_file(&self, digest: &Digest, info: &BlobInfo) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.blob_file(digest, info)? else { return Ok(None) };
        if info.size > INLINE_BYTES {
            wait::deadline()?;
        }
        // The caller has bounded the length.
        let mut bytes = vec![0; usize::try_from(info.size).unwrap_or(0)];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Some(bytes)),
            Err(e) => Err(Error::caused(Kind::Io, format!("blob {digest}: {e}"), e)),
        }
    }
}
