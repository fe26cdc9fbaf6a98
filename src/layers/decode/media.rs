//! Which media types of layers are known, and what each says about the compression.

use super::Compression;
use crate::error::Result;
use crate::fail;

/// What a media type promises about the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Any compression: the magic decides. containerd does so for whatever says gzip or zstd, and for Docker's
    /// uncompressed type, which old tools used for compressed layers.
    Sniffed,
    /// A plain archive; compressed bytes are not unpacked.
    Plain,
}

const DOCKER: &str = "application/vnd.docker.image.rootfs.";
const OCI: &str = "application/vnd.oci.image.layer.";

/// What `media_type` says about the bytes of a layer. Fails with `Unsupported` for an encrypted layer and for what is
/// no layer at all.
pub fn promise(media_type: &str) -> Result<Promise> {
    let mut parts = media_type.split('+');
    let base = parts.next().unwrap_or_default();
    let extensions: Vec<&str> = parts.collect();
    if extensions.contains(&"encrypted") {
        return fail!(Unsupported, "the layer is encrypted ({media_type}); ctrfs has no keys");
    }
    let docker = base.strip_prefix(DOCKER).map(|rest| rest.strip_prefix("foreign.").unwrap_or(rest));
    let oci = base.strip_prefix(OCI).map(|rest| rest.strip_prefix("nondistributable.").unwrap_or(rest));
    match (docker, oci, extensions.as_slice()) {
        (Some("diff.tar" | "diff.tar.gzip" | "diff.tar.zstd"), _, []) => Ok(Promise::Sniffed),
        (_, Some("v1.tar"), []) => Ok(Promise::Plain),
        (_, Some("v1.tar"), ["gzip" | "zstd"]) => Ok(Promise::Sniffed),
        _ => fail!(Unsupported, "ctrfs knows no layers of the media type {media_type:?}"),
    }
}

/// Fails if a blob that is compressed so must not carry `media_type`.
pub fn check(media_type: &str, found: Compression) -> Result<()> {
    match (promise(media_type)?, found) {
        (Promise::Plain, Compression::Gzip | Compression::Zstd) => fail!(
            Corrupt,
            "the media type {media_type} says a plain archive, but the bytes are {found:?}; containerd does not unpack it either"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_media_types_of_containerd_are_known() {
        for (media_type, promised) in [
            ("application/vnd.oci.image.layer.v1.tar", Promise::Plain),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", Promise::Plain),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Promise::Sniffed),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Promise::Sniffed),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Promise::Sniffed),
            ("application/vnd.docker.image.rootfs.diff.tar", Promise::Sniffed),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Promise::Sniffed),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Promise::Sniffed),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Promise::Sniffed),
        ] {
            assert_eq!(promise(media_type).unwrap(), promised, "{media_type}");
        }
        for media_type in [
            "",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+bzip2",
            "application/vnd.docker.image.rootfs.diff.tar+gzip",
            "application/vnd.in-toto+json",
            "application/octet-stream",
        ] {
            assert_eq!(promise(media_type).unwrap_err().kind(), Kind::Unsupported, "{media_type}");
        }
    }

    #[test]
    fn a_plain_archive_that_is_compressed_is_refused() {
        let refused = check("application/vnd.oci.image.layer.v1.tar", Compression::Gzip).unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt);
        assert!(check("application/vnd.docker.image.rootfs.diff.tar", Compression::Gzip).is_ok());
        assert!(check("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Plain).is_ok());
    }
}
