//! What can be said to an import.

use std::path::PathBuf;

/// `images import`
#[derive(Debug, clap::Parser)]
#[command(name = "images import", no_binary_name = true)]
pub struct ImportArgs {
    /// The archive
    pub file: PathBuf,
    #[command(flatten)]
    pub how: ImportFlags,
}

/// The same for an archive that is written to `import`.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "import", no_binary_name = true)]
pub struct ImportFlags {
    /// What stands before a tag; other full names are passed over
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Also an image by its digest
    #[arg(long)]
    pub digests: bool,
    /// None by its digest where there is one by name
    #[arg(long)]
    pub skip_digest_for_named: bool,
    /// Keep the archive's index as an image of this name
    #[arg(long, value_name = "NAME")]
    pub index_name: Option<String>,
    /// What the archive's only image is called
    #[arg(long, value_name = "REF", conflicts_with_all = ["base_name", "digests"])]
    pub tag: Option<String>,
    /// Of every platform
    #[arg(long)]
    pub all_platforms: bool,
    /// What for, instead of this machine's platform
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Do not unpack
    #[arg(long)]
    pub no_unpack: bool,
    /// Compress the layers of Docker's archives
    #[arg(long)]
    pub compress_blobs: bool,
    /// Let layers go once they are unpacked
    #[arg(long, conflicts_with = "no_unpack")]
    pub discard_unpacked_layers: bool,
    /// Unpack into this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// Label the images
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    #[arg(long, hide = true)]
    pub(super) local: bool,
    #[arg(long, hide = true)]
    pub(super) sync_fs: bool,
}
