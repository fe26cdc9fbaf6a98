//! The images that tests use.

use super::oci::{self, Layer, Layout};
use super::tar::Tar;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What a static busybox is called, beside its own name, in [`tiny`].
const APPLETS: [&str; 14] =
    ["sh", "ls", "cat", "sleep", "echo", "true", "false", "sed", "seq", "touch", "rm", "mkdir", "ln", "env"];

/// busybox, links to it, and a few files: the layer of [`tiny`].
pub fn busybox_layer() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is missing: run contrib/setup");
    let mut tar = Tar::new().dir("bin/").program("bin/busybox", busybox);
    for name in APPLETS {
        tar = tar.symlink(&format!("bin/{name}"), "busybox");
    }
    tar.dir("etc/")
        .file("etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
        .file("etc/group", "root:x:0:\n")
        .file("etc/greeting", "hello\n")
        .dir("tmp/")
        .finish()
}

/// A layout of one image that can run, for this host; and its manifest's descriptor.
pub fn tiny_layout() -> (Layout, Value) {
    let mut layout = Layout::new();
    let manifest = layout.image(&host(), &[Layer::gzip(busybox_layer())]);
    (layout, manifest)
}

/// A tar of it in `dir`, which is removed with what it belongs to.
pub fn tiny(dir: &Path) -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _guard = MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = dir.join("tiny.tar");
    if !path.exists() {
        let (layout, manifest) = tiny_layout();
        layout.save(&manifest, "latest", &path);
    }
    path
}

/// A tar of an image of three layers made from Debian packages (`contrib/demo-image`), kept between runs.
pub fn debian() -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _guard = MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = std::env::var_os("CTRFS_TEST_CACHE").unwrap_or("target/containerds".into());
    let path = root.join(cache).join("demo.tar");
    let made = Command::new(root.join("contrib/demo-image")).arg(&path).status().expect("no contrib/demo-image");
    assert!(made.success(), "contrib/demo-image failed");
    path
}

/// An index of two platforms, of which only this host's was pulled; the descriptors of the index and both manifests.
pub fn half_pulled() -> (Layout, Value, Value, Value) {
    let (mut layout, here) = tiny_layout();
    let mut other = Layout::new();
    let absent = other.image("linux/s390x", &[Layer::plain(Tar::new().file("s390x", "").finish())]);
    let index = layout.index(&[absent.clone(), here.clone()]);
    (layout, index, here, absent)
}

/// An index of one platform and an attestation for it, as buildkit writes it; descriptors of index, image, attestation.
pub fn attested() -> (Layout, Value, Value, Value) {
    let (mut layout, here) = tiny_layout();
    let statement = layout.blob("application/vnd.in-toto+json", r#"{"_type": "https://in-toto.io/Statement/v0.1"}"#);
    let config = json!({"architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]}});
    let config = layout.json(oci::CONFIG, &config);
    let manifest = json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [statement]});
    let mut attestation = layout.json(oci::MANIFEST, &manifest);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": here["digest"]});
    let index = layout.index(&[here.clone(), attestation.clone()]);
    (layout, index, here, attestation)
}

/// A helm chart: a manifest without a root file system.
pub fn artifact() -> (Layout, Value) {
    let mut layout = Layout::new();
    let config = layout.blob("application/vnd.cncf.helm.config.v1+json", r#"{"name": "chart", "version": "1.0.0"}"#);
    let chart = layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "no archive at all");
    let manifest = json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [chart]});
    let manifest = layout.json(oci::MANIFEST, &manifest);
    (layout, manifest)
}

/// Two layers, zstd and plain.
pub fn zstd() -> (Layout, Value) {
    let mut layout = Layout::new();
    let lower = Layer::zstd(busybox_layer());
    let upper = Layer::plain(Tar::new().dir("etc/").whiteout("etc/", "greeting").file("upper", "upper\n").finish());
    let manifest = layout.image(&host(), &[lower, upper]);
    (layout, manifest)
}

/// This host's platform as images call it.
pub fn host() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}
