//! Odd layers: each is what containerd shows of it, or refused as containerd refuses it.

use super::*;
use crate::common::oci::{LAYER, Layout};
use crate::common::{Mount, Version, images};
use crate::support::nasty::{self, Case};
use crate::support::tarball::{d, f, tar};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// Cases that are not run: a file of 1 GiB is the same at 16 MiB, and containerd writes its hole out.
const LEFT_OUT: [&str; 1] = ["sparse-pax10-allhole"];

/// Cases that only newer versions accept, and ctrfs always.
const NEWER: [&str; 1] = ["cmp-docker-zstd"];

/// An image to be compared.
struct Odd {
    name: String,
    manifest: Value,
}

/// What an image of the odd layers' table is in a layout; every other one compressed.
fn image(layout: &mut Layout, number: usize, case: Case) -> Odd {
    let pack = if number.is_multiple_of(2) { Layer::plain } else { Layer::zstd };
    let layers: Vec<Layer> = case.layers.into_iter().map(pack).collect();
    Odd { name: case.name.to_lowercase(), manifest: layout.image(&images::host(), &layers) }
}

/// A case of section N: how its archive becomes a blob, and of what type that is said to be.
type Packed = (&'static str, fn(Vec<u8>) -> Layer, String);

/// Section N: compression and media types. Each has an archive of its own: what is unpacked once is not unpacked again
/// by containerd, however it is compressed.
fn compressions() -> Vec<(&'static str, Layer)> {
    const DOCKER: &str = "application/vnd.docker.image.rootfs.";
    let gz = format!("{LAYER}+gzip");
    let cases: Vec<Packed> = vec![
        ("cmp-plain", Layer::plain, LAYER.into()),
        ("cmp-gz", Layer::gzip, gz.clone()),
        ("cmp-gz-members", |tar| two(tar, Layer::gzip, b""), gz.clone()),
        ("cmp-zstd", Layer::zstd, format!("{LAYER}+zstd")),
        ("cmp-zstd-multiframe-skippable", |tar| two(tar, Layer::zstd, SKIPPABLE), format!("{LAYER}+zstd")),
        ("cmp-zstd-leading-skippable", |tar| blob(tar, Layer::zstd, |b| drop(b.splice(..0, *SKIPPABLE))), gz.clone()),
        ("cmp-gz-declared-zstd", Layer::zstd, gz.clone()),
        ("cmp-gz-declared-plain", Layer::plain, gz.clone()),
        ("cmp-zstd-declared-gz", Layer::gzip, format!("{LAYER}+zstd")),
        ("cmp-plain-declared-gz", Layer::gzip, LAYER.into()),
        ("cmp-plain-declared-zstd", Layer::zstd, LAYER.into()),
        ("cmp-docker-gz", Layer::gzip, format!("{DOCKER}diff.tar.gzip")),
        ("cmp-docker-plain-is-gz", Layer::gzip, format!("{DOCKER}diff.tar")),
        ("cmp-docker-zstd", Layer::zstd, format!("{DOCKER}diff.tar.zstd")),
        ("cmp-docker-foreign", Layer::gzip, format!("{DOCKER}foreign.diff.tar.gzip")),
        ("cmp-nondist", Layer::gzip, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into()),
        ("cmp-unknown-mt", Layer::gzip, "application/x-unknown".into()),
        ("cmp-encrypted", Layer::gzip, format!("{gz}+encrypted")),
        ("cmp-gz-trailing-garbage", |tar| blob(tar, Layer::gzip, |b| b.extend(b"garbage")), gz.clone()),
        ("cmp-gz-trailing-zeros", |tar| blob(tar, Layer::gzip, |b| b.extend([0; 512])), gz.clone()),
        ("cmp-gz-truncated", |tar| blob(tar, Layer::gzip, |b| b.truncate(b.len() / 2)), gz.clone()),
        ("cmp-gz-truncated-trailer", |tar| blob(tar, Layer::gzip, |b| b.truncate(b.len() - 8)), gz.clone()),
        ("cmp-gz-badisize", |tar| blob(tar, Layer::gzip, |b| *b.iter_mut().nth_back(0).unwrap() ^= 1), gz.clone()),
        ("cmp-gz-badcrc", |tar| blob(tar, Layer::gzip, |b| *b.iter_mut().nth_back(7).unwrap() ^= 1), gz.clone()),
        ("cmp-zstd-truncated", |tar| blob(tar, Layer::zstd, |b| b.truncate(b.len() / 2)), gz.clone()),
        ("cmp-diffid-mismatch", |tar| Layer { diff_id: oci::digest(b"another"), ..Layer::gzip(tar) }, gz.clone()),
        ("cmp-empty-gz", |_| Layer::gzip(Vec::new()), gz),
    ];
    let archive = |name: &str| tar(&[f("a", "hello"), f("b", [b'b'; 5000]), d("c/"), f("case", name)]);
    let layer = |(name, pack, media_type): Packed| (name, Layer { media_type, ..pack(archive(name)) });
    cases.into_iter().map(layer).collect()
}

/// A frame that zstd passes over.
const SKIPPABLE: &[u8; 13] = b"\x50\x2a\x4d\x18\x05\0\0\0hello";

/// An archive compressed in two parts, each followed by `between`.
fn two(tar: Vec<u8>, pack: fn(Vec<u8>) -> Layer, between: &[u8]) -> Layer {
    let (head, tail) = tar.split_at(700);
    let blob = [&pack(head.to_vec()).blob, between, &pack(tail.to_vec()).blob, between].concat();
    Layer { blob, ..Layer::plain(tar) }
}

/// A compressed archive whose blob is changed afterwards.
fn blob(tar: Vec<u8>, pack: fn(Vec<u8>) -> Layer, change: fn(&mut Vec<u8>)) -> Layer {
    let mut layer = pack(tar);
    change(&mut layer.blob);
    layer
}

/// What is wrong with what ctrfs makes of an image, if anything is: of its blobs, and then of what containerd unpacked.
fn complaint(world: &World, unpacked: &Mount, layout: &Layout, odd: &Odd, since: Time) -> Option<String> {
    let image = format!("docker.io/nasty/c:{}", odd.name);
    let rootfs = world.path(&format!("manifests/{}/rootfs", oci::hex_of(&odd.manifest)));
    let blobs = Tree::read(&world.mount().at_path(&rootfs));
    // Where overlayfs refuses and native does not, native is shown.
    let right = ctr_mount(world, &image, &[])
        .or_else(|error| native(world, layout, odd).map_err(|native| format!("{error}; native: {native}")));
    match (right, blobs) {
        (Ok(right), Ok(blobs)) => {
            let right = Tree::read(&right.0).unwrap();
            let mut lines = right.differences(&blobs, since);
            match Tree::read(&unpacked.at_path(&rootfs)) {
                // Directories that a layer implies have the same time in both.
                Ok(unpacked) => lines.extend(blobs.differences(&unpacked, NEVER)),
                Err(error) => lines.push(format!("what is unpacked is refused: {error}")),
            }
            (!lines.is_empty()).then(|| lines.join("\n    "))
        }
        (Ok(_), Err(error)) => Some(format!("refused: {error}; {}", why(world, odd))),
        (Err(_), Ok(_)) if NEWER.contains(&odd.name.as_str()) && world.version() < Version::V2 => None,
        (Err(error), Ok(_)) => Some(format!("shown, but containerd says {error:?}")),
        (Err(_), Err(error)) => refusal(world, odd, &error),
    }
}

/// What the native snapshotter has of an image.
fn native(world: &World, layout: &Layout, odd: &Odd) -> Result<Reference, String> {
    let image = format!("docker.io/nasty/c:{}", odd.name);
    if world.version() > Version::V1_6 {
        return ctr_mount(world, &image, &["--snapshotter", "native"]);
    }
    // `ctr images mount` of 1.6 does not mind what --snapshotter says.
    let run = |args: &[&str]| {
        let done = world.containerd.try_ctr(&world.namespace, args);
        if done.code == Some(0) { Ok(done.out) } else { Err(done.err) }
    };
    let dir = world.containerd.dir.join(format!("native-{}-{}", world.namespace, odd.name));
    std::fs::create_dir(&dir).unwrap();
    let tar = dir.with_extension("tar");
    layout.only(&odd.manifest).save(&odd.manifest, &odd.name, &tar);
    let import = ["images", "import", "--snapshotter", "native", "--base-name", "docker.io/nasty/native"];
    run(&[&import[..], &[tar.to_str().unwrap()]].concat())?;
    let layers = format!("manifests/{}/layers", oci::hex_of(&odd.manifest));
    let top = world.ls(&layers).pop().unwrap();
    let chain = world.value(&format!("{layers}/{top}/chain_id"));
    world.containerd.rpc().view_snapshot(&world.namespace, "native", &odd.name, &chain);
    let command = run(&["snapshots", "--snapshotter", "native", "mounts", dir.to_str().unwrap(), &odd.name])?;
    let done = crate::common::sh(&command, &[], 10);
    if done.code == Some(0) { Ok(Reference(dir)) } else { Err(format!("{command}: {}", done.err)) }
}

/// What `rootfs.error` says.
fn why(world: &World, odd: &Odd) -> String {
    let path = world.mount().at_path(&world.path(&format!("manifests/{}/rootfs.error", oci::hex_of(&odd.manifest))));
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("(no rootfs.error: {error})"))
}

/// What is wrong with how ctrfs refuses a root filesystem.
fn refusal(world: &World, odd: &Odd, error: &io::Error) -> Option<String> {
    let dir = world.path(&format!("manifests/{}", oci::hex_of(&odd.manifest)));
    let at = |name: &str| world.mount().at_path(&format!("{dir}/{name}"));
    let wanted = match odd.name.as_str() {
        "cmp-diffid-mismatch" => libc::EBADMSG,
        "cmp-unknown-mt" | "cmp-encrypted" => libc::ENOENT,
        _ => libc::EUCLEAN,
    };
    if error.raw_os_error() != Some(wanted) {
        return Some(format!("the errno is {error}, not {wanted}; {}", why(world, odd)));
    }
    if why(world, odd).trim().is_empty() || why(world, odd).starts_with("(no") {
        return Some(format!("no reason is given: {}", why(world, odd)));
    }
    let failed = ["manifest.json", "config.json", "history", "layers/00/digest", "layers/00/blob"];
    let failed: Vec<&str> = failed.into_iter().filter(|name| std::fs::read(at(name)).is_err()).collect();
    (!failed.is_empty()).then(|| format!("cannot read {failed:?}"))
}

/// All of them, in one namespace: not unpacked for ctrfs, then unpacked by `ctr images mount`.
fn odd_layers(world: &World) {
    let since = start();
    let mut layout = Layout::new();
    let cases = nasty::all().into_iter().filter(|case| !LEFT_OUT.contains(&case.name));
    let mut odds: Vec<Odd> = cases.enumerate().map(|(number, case)| image(&mut layout, number, case)).collect();
    for (name, layer) in compressions() {
        odds.push(Odd { name: name.into(), manifest: layout.image(&images::host(), &[layer]) });
    }
    let file = world.containerd.dir.join(format!("{}.tar", world.namespace));
    let named: Vec<(String, Value)> = odds.iter().map(|odd| (odd.name.clone(), odd.manifest.clone())).collect();
    layout.save_all(&named, &file);
    world.ctr(&["images", "import", "--no-unpack", "--base-name", "docker.io/nasty/c", file.to_str().unwrap()]);
    let unpacked = &Mount::new(&world.containerd, &[]);
    world.mount();
    let found = Mutex::new(Vec::new());
    let (wrong, layout) = (&found, &layout);
    std::thread::scope(|scope| {
        for part in odds.chunks(odds.len().div_ceil(3)) {
            scope.spawn(move || {
                for odd in part {
                    let what = catch_unwind(AssertUnwindSafe(|| complaint(world, unpacked, layout, odd, since)));
                    if let Some(what) = what.unwrap_or_else(|_| Some("a panic, see above".into())) {
                        wrong.lock().unwrap().push(format!("{}:\n    {what}", odd.name));
                    }
                }
            });
        }
    });
    let wrong = found.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases\n{}", wrong.len(), odds.len(), wrong.join("\n"));
}

crate::each_version!(odd_layers);
