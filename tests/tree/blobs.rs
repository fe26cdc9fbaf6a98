//! `blobs/`: the content store, byte for byte, and what is wrong with it told as an error.

use crate::common::{World, eventually, oci};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

fn path_of(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Where containerd itself keeps a blob.
fn stored(world: &World, digest: &str) -> PathBuf {
    let blobs = world.containerd.dir.join("root/io.containerd.content.v1.content/blobs");
    blobs.join(digest.replace(':', "/"))
}

/// Bytes that do not compress and do not repeat, no document of any kind.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// The blobs are those of `ctr content ls`, with their sizes, times and labels, and their bytes are those of the digest.
fn are_the_content_store(world: &World) {
    world.tiny();
    // An import's own index goes with the next garbage collection.
    eventually("three blobs are left", Duration::from_secs(10), || {
        world.containerd.rpc().blobs(&world.namespace).len() == 3
    });
    std::thread::sleep(Duration::from_secs(1));
    let mut listed: Vec<String> = world.ctr(&["content", "ls", "-q"]).lines().map(str::to_owned).collect();
    listed.sort();
    let ours: Vec<String> = world.ls("blobs/sha256").iter().map(|hex| format!("sha256:{hex}")).collect();
    assert_eq!(ours, listed);
    for info in world.containerd.rpc().blobs(&world.namespace) {
        let path = path_of(&info.digest);
        let meta = fs::metadata(world.mount().at_path(&world.path(&path))).unwrap();
        assert_eq!(meta.len(), info.size as u64, "{path}");
        let created = info.created_at.unwrap();
        let updated = info.updated_at.unwrap_or(created);
        assert!([created.seconds, updated.seconds].contains(&meta.mtime()), "{path} has mtime {}", meta.mtime());
        assert_eq!(oci::digest(&world.bytes(&path)), info.digest);
        for (key, value) in &info.labels {
            assert_eq!(world.xattr(&path, &format!("user.label.{key}")).as_ref(), Ok(value), "{path}");
        }
    }
    let sums = world.sh("cd blobs/sha256 && sha256sum *", 20).ok();
    assert!(sums.lines().all(|line| line.split_whitespace().next() == line.split_whitespace().last()), "{sums}");
}

/// A large blob is read at any offset, forward and backward, by several readers at once.
fn any_offset(world: &World) {
    let (path, digest) = read_at_any_offset(world);
    let compared = world.sh(&format!("cmp {} {}", path.display(), stored(world, &digest).display()), 30);
    assert_eq!(compared.code, Some(0), "{compared:?}");
}

/// The same where the content store is not to be seen, as in a container: all of it comes over gRPC.
fn over_the_api(world: &World) {
    let (path, digest) = read_at_any_offset(world);
    assert!(!stored(world, &digest).exists(), "the content store is visible");
    assert_eq!(oci::digest(&fs::read(path).unwrap()), digest);
}

fn read_at_any_offset(world: &World) -> (PathBuf, String) {
    // The last block is not a whole one.
    let bytes = noise((24 << 20) + 12_345, 7);
    let digest = oci::digest(&bytes);
    world.containerd.rpc().write_blob(&world.namespace, &digest, &bytes);
    let path = world.mount().at_path(&world.path(&path_of(&digest)));
    eventually("the blob is here", Duration::from_secs(2), || path.exists());
    let file = fs::File::open(&path).unwrap();
    let last = bytes.len() as u64;
    for (offset, length) in
        [(last - 5, 100), (0, 1), (1 << 20, 4096), ((1 << 20) - 1, 2), (12_345_678, 3 << 20), (last, 10)]
    {
        let mut part = vec![0; length];
        let mut got = 0;
        while let Ok(more @ 1..) = file.read_at(&mut part[got..], offset + got as u64) {
            got += more;
        }
        let end = (offset as usize + length).min(bytes.len());
        assert_eq!(part[..got], bytes[offset as usize..end], "{length} bytes at {offset}");
    }
    std::thread::scope(|scope| {
        for reader in 0..4u64 {
            let (path, bytes) = (&path, &bytes);
            scope.spawn(move || {
                let mut file = fs::File::open(path).unwrap();
                let from = reader * 3_333_333;
                file.seek(SeekFrom::Start(from)).unwrap();
                let mut rest = Vec::new();
                file.read_to_end(&mut rest).unwrap();
                assert!(rest == bytes[from as usize..], "the rest from {from} differs");
            });
        }
    });
    (path, digest)
}

/// A blob that comes is here within about a second, one that goes is gone; what is open can still be closed.
fn come_and_go(world: &World) {
    let digest = oci::digest(b"short-lived");
    let path = path_of(&digest);
    assert!(!world.exists(&path));
    world.containerd.rpc().write_blob(&world.namespace, &digest, b"short-lived");
    eventually("the blob is here", Duration::from_secs(2), || world.exists(&path));
    assert_eq!(world.read(&path), "short-lived");
    world.containerd.rpc().delete_blob(&world.namespace, &digest);
    eventually("the blob is gone", Duration::from_secs(2), || !world.exists(&path));
}

/// Names that are no digest, and digests that are not here, are ENOENT.
fn unknown(world: &World) {
    let absent = oci::digest(b"never written").replace(':', "/");
    for name in ["sha256/zz", "sha256/ABC", "md5/x", &absent, "sha256/%2e%2e"] {
        assert_eq!(world.mount().errno(&world.path(&format!("blobs/{name}"))), libc::ENOENT, "{name}");
    }
}

/// A blob is visible only in the namespace that it belongs to.
fn belong_to_a_namespace(world: &World) {
    let digest = oci::digest(b"mine");
    world.containerd.rpc().write_blob(&world.namespace, &digest, b"mine");
    let other = world.containerd.new_namespace();
    world.containerd.ctr("default", &["namespaces", "create", &other]);
    eventually("the blob is here", Duration::from_secs(2), || world.exists(&path_of(&digest)));
    assert!(!world.mount().exists(&format!("namespaces/{other}/{}", path_of(&digest))));
}

/// A document whose bytes are not its digest is EBADMSG: an altered one is never served.
fn altered(world: &World) {
    let document = br#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}"#;
    let digest = oci::digest(document);
    world.containerd.rpc().write_blob(&world.namespace, &digest, document);
    let mut wrong = document.to_vec();
    wrong[3] ^= 1;
    overwrite(&stored(world, &digest), &wrong);
    eventually("the blob is here", Duration::from_secs(2), || world.exists(&path_of(&digest)));
    assert_eq!(world.mount().errno(&world.path(&path_of(&digest))), libc::EBADMSG);
}

/// A blob that is shorter than its record gives an error and says so in the log, never a short read.
fn short(world: &World) {
    let bytes = noise(10 << 20, 99);
    let digest = oci::digest(&bytes);
    world.containerd.rpc().write_blob(&world.namespace, &digest, &bytes);
    overwrite(&stored(world, &digest), &bytes[..9 << 20]);
    eventually("the blob is here", Duration::from_secs(2), || world.exists(&path_of(&digest)));
    assert_eq!(world.mount().errno(&world.path(&path_of(&digest))), libc::EIO);
    let log = world.mount().read(".ctrfs/error_log") + &world.mount().said();
    assert!(log.contains(digest.split_once(':').unwrap().1), "{log}");
}

/// A blob whose record stays while its bytes are gone gives an error.
fn missing(world: &World) {
    let digest = oci::digest(b"about to vanish");
    world.containerd.rpc().write_blob(&world.namespace, &digest, b"about to vanish");
    fs::remove_file(stored(world, &digest)).unwrap();
    eventually("the record is here", Duration::from_secs(2), || world.exists(&path_of(&digest)));
    let errno = world.mount().errno(&world.path(&path_of(&digest)));
    assert!([libc::EIO, libc::ENODATA, libc::ENOENT].contains(&errno), "errno {errno}");
}

/// A blob cannot be opened for writing: the store behind it would be written.
fn read_only(world: &World) {
    let digest = oci::digest(b"precious");
    world.containerd.rpc().write_blob(&world.namespace, &digest, b"precious");
    let path = world.mount().at_path(&world.path(&path_of(&digest)));
    eventually("the blob is here", Duration::from_secs(2), || path.exists());
    for options in
        [fs::File::options().write(true), fs::File::options().append(true), fs::File::options().read(true).write(true)]
    {
        assert!(options.open(&path).is_err(), "{options:?}");
    }
    assert_eq!(fs::read(stored(world, &digest)).unwrap(), b"precious");
}

/// Replaces a file of the content store, which containerd writes 0444.
fn overwrite(path: &PathBuf, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

crate::each_version!(
    are_the_content_store,
    any_offset,
    come_and_go,
    unknown,
    belong_to_a_namespace,
    altered,
    short,
    missing,
    read_only
);
crate::each_version_of!(crate::common::World::apart; over_the_api);
