//! `images pull` and `content fetch`: an image from a registry, as `ctr` leaves it.

use super::fetch::{Arrivals, Fetch, label_args};
use super::platforms::{Wanted, is_modern};
use super::progress::Progress;
use super::registry::{Registry, RegistryArgs};
use super::unpack;
use crate::containerd::{Descriptor, Digest, ManifestKind, Namespace, Replace};
use crate::error::Result;
use crate::fail;
use std::collections::BTreeMap;
use std::time::Duration;

/// A lease outlives whatever a pull may take, and ends by itself if ctrfs was killed.
pub const LEASE: Duration = Duration::from_secs(24 * 3600);

/// So many blobs at once.
const PARALLEL: usize = 3;

/// What is got from a registry: the flags that a pull and a fetch share.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// The whole reference: docker.io/library/busybox:1.36
    pub reference: String,
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Label the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// What for, instead of this machine's platform
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Layers of every platform
    #[arg(long)]
    pub all_platforms: bool,
    /// Manifests and configs of every platform
    #[arg(long)]
    pub all_metadata: bool,
}

/// `images pull`
#[derive(Debug, clap::Parser)]
#[command(name = "images pull", no_binary_name = true)]
pub struct PullArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Unpack into this snapshotter
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// Only the manifests and configs of the platforms that are pulled
    #[arg(long, conflicts_with = "all_metadata")]
    pub skip_metadata: bool,
    /// Fetch and do not unpack
    #[arg(long)]
    pub no_unpack: bool,
    /// So many blobs at once (3)
    #[arg(long, value_name = "N")]
    pub max_concurrent_downloads: Option<usize>,
    /// As always here: the daemon fetches
    #[arg(long, hide = true)]
    pub local: bool,
    #[arg(long, hide = true)]
    print_chainid: bool,
    #[arg(long, hide = true)]
    sync_fs: bool,
}

/// `content fetch`
#[derive(Debug, clap::Parser)]
#[command(name = "content fetch", no_binary_name = true)]
pub struct FetchArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Manifests and configs, and no layers
    #[arg(long, hide = true)]
    metadata_only: bool,
}

/// Pulls an image; its target.
pub fn pull(ns: &Namespace, args: &PullArgs, progress: &Progress) -> Result<Descriptor> {
    if args.print_chainid {
        return fail!(Unsupported, "--print-chainid is not supported; layers/*/chain_id of the image has it");
    }
    if args.sync_fs {
        return fail!(Unsupported, "--sync-fs is not supported; run `sync` when it is pulled");
    }
    let modern = is_modern(ns.client())?;
    let wanted = Wanted::new(&args.source.platform, args.source.all_platforms)?;
    // From 2.0 on, `ctr` unpacks nothing of what it pulls for all platforms.
    let unpacks = !(args.no_unpack || modern && args.source.all_platforms);
    let all_metadata = args.source.all_metadata || (modern && !args.skip_metadata);
    let plan = Plan {
        reference: &args.source.reference,
        registry: &args.source.registry,
        labels: label_args(&args.source.label)?,
        wanted,
        all_metadata,
        parallel: args.max_concurrent_downloads.filter(|n| *n > 0).unwrap_or(PARALLEL).min(64),
        snapshotter: unpacks.then(|| unpack::snapshotter(ns, args.snapshotter.as_deref())).transpose()?,
    };
    plan.run(ns, progress)
}

/// Fetches an image's content and unpacks nothing; its target.
pub fn fetch(ns: &Namespace, args: &FetchArgs, progress: &Progress) -> Result<Descriptor> {
    if args.metadata_only {
        return fail!(
            Unsupported,
            "--metadata-only is not supported; `skopeo inspect --raw` and `--config` show manifest and config"
        );
    }
    let plan = Plan {
        reference: &args.source.reference,
        registry: &args.source.registry,
        labels: label_args(&args.source.label)?,
        wanted: Wanted::new(&args.source.platform, args.source.all_platforms)?,
        all_metadata: args.source.all_metadata,
        parallel: PARALLEL,
        snapshotter: None,
    };
    plan.run(ns, progress)
}

struct Plan<'a> {
    reference: &'a str,
    registry: &'a RegistryArgs,
    labels: BTreeMap<String, String>,
    wanted: Wanted,
    all_metadata: bool,
    parallel: usize,
    snapshotter: Option<String>,
}

impl Plan<'_> {
    fn run(&self, ns: &Namespace, progress: &Progress) -> Result<Descriptor> {
        ns.expect()?;
        let registry = Registry::new(ns.client(), self.reference, self.registry)?;
        let lease = ns.lease(LEASE)?;
        let held = lease.namespace();
        let fetch = Fetch {
            held,
            registry: &registry,
            wanted: &self.wanted,
            all_metadata: self.all_metadata,
            parallel: self.parallel,
            progress,
        };
        let found = fetch.resolve()?;
        let (target, manifests) = (found.target.clone(), found.manifests.clone());
        fetch.blobs(found, |arrivals| self.unpack(held, &manifests, arrivals, progress))?;
        // The name comes last: who finds it finds all of it.
        held.put_image(self.reference, &target, &self.labels, Replace::All)?;
        progress.say(format!("pulled {}", target.digest));
        Ok(target)
    }

    /// Unpacks each layer as soon as it is here.
    fn unpack(
        &self,
        held: &Namespace,
        manifests: &[Descriptor],
        arrivals: &Arrivals,
        progress: &Progress,
    ) -> Result<()> {
        let Some(snapshotter) = &self.snapshotter else { return Ok(()) };
        for manifest in self.wanted.best(manifests) {
            let named = held.manifest_now(&manifest.digest)?;
            if let Some(config) = &named.config {
                arrivals.wait(&config.digest)?;
            }
            // A chart or another artifact has no root file system.
            if named.kind == ManifestKind::Image {
                let ready = |layer: &Digest| {
                    if !arrivals.has(layer) {
                        progress.say(format!("fetching {layer}"));
                    }
                    arrivals.wait(layer)
                };
                unpack::unpack_when(held, &manifest.digest, snapshotter, progress, &ready)?;
            }
        }
        Ok(())
    }
}
