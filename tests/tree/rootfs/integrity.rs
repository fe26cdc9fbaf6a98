//! Bytes that are not what they should be: an errno and a reason, and the rest goes on.

use super::*;
use crate::common::oci::Layout;
use crate::common::{eventually, images};
use crate::support::tarball::{f, open, tar};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Stores an image; its manifest's descriptor.
fn stored(world: &World, name: &str, layers: &[Layer]) -> serde_json::Value {
    let mut layout = Layout::new();
    let manifest = layout.image(&images::host(), layers);
    layout.store(&world.containerd, &world.namespace, name, &manifest);
    let path = world.mount().at_path(&world.path(&format!("manifests/{}", oci::hex_of(&manifest))));
    eventually("the manifest is here", Duration::from_secs(5), || path.exists());
    manifest
}

/// `rootfs.error` and the files that have to work all the same.
#[track_caller]
fn reason(world: &World, manifest: &serde_json::Value) -> String {
    let dir = format!("manifests/{}", oci::hex_of(manifest));
    for name in ["manifest.json", "config.json", "history", "layers/00/digest", "layers/00/diff_id"] {
        assert!(!world.read(&format!("{dir}/{name}")).is_empty(), "{name}");
    }
    world.value(&format!("{dir}/rootfs.error"))
}

/// A byte of a layer was changed in the content store: EBADMSG, and the sentence names the layer.
fn altered(world: &World) {
    let content: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2654435761).to_le_bytes()).collect();
    let members = [f("data", content)];
    let archive = || tar(&[&members[..], &[unique(world)]].concat());
    for (name, layer) in
        [("plain", Layer::plain(archive())), ("gzip", Layer::gzip(archive())), ("zstd", Layer::zstd(archive()))]
    {
        let (digest, middle) = (oci::digest(&layer.blob), layer.blob.len() as u64 / 2);
        let manifest = stored(world, name, &[layer]);
        let file = std::fs::File::options().read(true).write(true).open(blob_file(world, &digest)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        assert_eq!(refused(&rootfs_path(world, &manifest)), libc::EBADMSG, "{name}");
        assert!(reason(world, &manifest).contains(&digest), "{name}: {}", reason(world, &manifest));
    }
    let whole = stored(world, "whole", &[unique_layer(world, &[])]);
    assert_eq!(shown(world, &whole).files.len(), 2, "other images go on");
    assert!(world.mount().read(".ctrfs/error_log").contains("sha256:"), "it is in the log");
}

/// A layer whose file in the content store was cut short is an error, whatever its record says.
fn cut_short(world: &World) {
    for (name, pack) in [("plain", Layer::plain as fn(Vec<u8>) -> Layer), ("gzip", Layer::gzip)] {
        let layer = pack(tar(&[f("data", vec![b'x'; 100_000]), unique(world)]));
        let (digest, half) = (oci::digest(&layer.blob), layer.blob.len() as u64 / 2);
        let manifest = stored(world, name, &[layer]);
        std::fs::File::options().write(true).open(blob_file(world, &digest)).unwrap().set_len(half).unwrap();
        let errno = refused(&rootfs_path(world, &manifest));
        assert!([libc::EBADMSG, libc::EUCLEAN, libc::EIO].contains(&errno), "{name}: {errno}");
        assert!(!reason(world, &manifest).is_empty());
    }
}

/// The config names another archive: EBADMSG. Another image that names the layer rightly is not harmed.
fn wrong_diff_id(world: &World) {
    let layer = unique_layer(world, &[f("a", "x")]);
    let right =
        Layer { media_type: layer.media_type.clone(), blob: layer.blob.clone(), diff_id: layer.diff_id.clone() };
    let wrong = stored(world, "wrong", &[Layer { diff_id: oci::digest(b"something else"), ..layer }]);
    let right = stored(world, "right", &[right]);
    assert_eq!(refused(&rootfs_path(world, &wrong)), libc::EBADMSG);
    assert!(reason(world, &wrong).contains(&oci::digest(b"something else")));
    assert_eq!(shown(world, &right).files.len(), 3);
}

/// A gzip member of 64 MiB of zeros.
fn zeros() -> &'static [u8] {
    static ZEROS: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    ZEROS.get_or_init(|| Command::new("bash").args(["-c", "head -c 64M /dev/zero | gzip -n"]).output().unwrap().stdout)
}

/// An archive of one file of zeros that takes 64 MiB times `times`, as members of gzip; its blob and how large the file is.
fn bomb(world: &World, times: u64) -> (Vec<u8>, u64) {
    let head = |size| open(&[unique(world), f("zeros", "").size(size)]);
    // What follows the file's last byte is the end of the archive.
    let size = times * (64 << 20) - 1024;
    let mut blob = Layer::gzip(head(size)).blob;
    (0..times).for_each(|_| blob.extend(zeros()));
    (blob, size)
}

/// A layer that expands a thousandfold takes time, not memory; and it is right.
fn expansion(world: &World) {
    let (blob, size) = bomb(world, 6);
    let file = world.containerd.dir.join(format!("{}.gz", world.namespace));
    std::fs::write(&file, &blob).unwrap();
    let sum = crate::common::sh("gzip -dc \"$F\" | sha256sum", &[("F", file.to_str().unwrap())], 60).ok();
    let diff_id = format!("sha256:{}", sum.split(' ').next().unwrap());
    assert!(size / blob.len() as u64 > 900, "it expands only {}-fold", size / blob.len() as u64);
    let layer = Layer { media_type: format!("{}+gzip", oci::LAYER), blob, diff_id };
    let manifest = stored(world, "bomb", &[layer]);
    let path = rootfs_path(world, &manifest).join("zeros");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    let file = std::fs::File::open(&path).unwrap();
    let mut bytes = vec![1; 1 << 20];
    for at in [size / 2, 0, size - (1 << 20)] {
        file.read_exact_at(&mut bytes, at).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.mount().pid())).unwrap();
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let anonymous: u64 = field.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(anonymous < 120 << 10, "it takes {anonymous} kB");
}

/// Whoever waits for an index can be killed at once, and neither the mount nor the build minds.
fn killed_reader(world: &World) {
    // Seven GiB: this takes seconds on any machine.
    let (blob, _) = bomb(world, 112);
    let layer = Layer { media_type: format!("{}+gzip", oci::LAYER), blob, diff_id: oci::digest(b"never known") };
    let slow = stored(world, "slow", &[layer]);
    let quick = stored(world, "quick", &[unique_layer(world, &[f("a", "x")])]);
    let path = rootfs_path(world, &slow);
    assert!(std::fs::metadata(&path).unwrap().is_dir(), "a stat of it waits for nothing");
    let mut readers: Vec<_> = (0..3)
        .map(|_| Command::new("ls").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let progress = world.read(&format!("manifests/{}/progress", oci::hex_of(&slow)));
    let numbers: Vec<&str> = progress.trim_end().split('\t').collect();
    assert!(numbers[1].parse::<u64>().unwrap() < numbers[2].parse::<u64>().unwrap(), "{progress}");
    assert_eq!(shown(world, &quick).files.len(), 3, "others are served meanwhile");
    for reader in &mut readers {
        assert!(reader.try_wait().unwrap().is_none(), "it was indexed too fast for this test");
        let killed = Instant::now();
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(killed.elapsed() < Duration::from_millis(200), "it died after {:?}", killed.elapsed());
    }
    assert_eq!(world.ls(&format!("manifests/{}/rootfs", oci::hex_of(&quick))), ["a", "unique"]);
    assert!(world.exists(&format!("manifests/{}/progress", oci::hex_of(&slow))), "the build goes on");
}

crate::each_version!(altered, cut_short, wrong_diff_id, expansion, killed_reader);
