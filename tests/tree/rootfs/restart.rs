//! Indexes on disk: read instead of the layers, never believed blindly.

use super::*;
use crate::common::oci::Layout;
use crate::common::{Mount, images};
use crate::support::tarball::{d, f, tar};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// A mount whose cache stays when it is gone.
struct Kept<'a> {
    world: &'a World,
    dir: PathBuf,
}

impl Kept<'_> {
    fn new(world: &World) -> Kept<'_> {
        let dir = world.containerd.dir.join(format!("kept-{}", world.namespace));
        std::fs::create_dir_all(dir.join("m")).unwrap();
        Kept { world, dir }
    }

    fn mount(&self) -> Mount {
        Mount::at(&self.dir.join("m"), &self.world.containerd.address(), &self.dir, &[])
    }

    fn rootfs(&self, mount: &Mount, manifest: &serde_json::Value) -> PathBuf {
        mount.at_path(&self.world.path(&format!("manifests/{}/rootfs", oci::hex_of(manifest))))
    }

    /// The files below the cache directory.
    fn files(&self) -> Vec<PathBuf> {
        let (mut all, mut dirs) = (Vec::new(), vec![self.dir.join("cache")]);
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => dirs.push(entry.path()),
                    false => all.push(entry.path()),
                }
            }
        }
        all
    }
}

/// An image of two layers with enough in it; its layers' digests.
fn image(world: &World) -> (serde_json::Value, Vec<String>) {
    let mut members = vec![d("many/")];
    members.extend((0..3000).map(|n| f(format!("many/{n}"), format!("{n} ").repeat(n % 1000))));
    let layers = [Layer::gzip(tar(&[&members[..], &[unique(world)]].concat())), unique_layer(world, &[f("top", "t")])];
    let digests = layers.iter().map(|layer| oci::digest(&layer.blob)).collect();
    let mut layout = Layout::new();
    let manifest = layout.image(&images::host(), &layers);
    layout.store(&world.containerd, &world.namespace, "many", &manifest);
    (manifest, digests)
}

/// After a restart the first `ls` reads no layer: it works where the blobs are not what they were.
fn no_layer_is_read(world: &World) {
    let (manifest, digests) = image(world);
    let kept = Kept::new(world);
    let first = kept.mount();
    let before = read(&kept.rootfs(&first, &manifest));
    assert_eq!(before.files.len(), 3004);
    drop(first);
    for digest in &digests {
        let file = std::fs::File::options().write(true).open(blob_file(world, digest)).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all_at(&vec![0; length as usize], 0).unwrap();
    }
    let second = kept.mount();
    let rootfs = kept.rootfs(&second, &manifest);
    let started = Instant::now();
    assert_eq!(std::fs::read_dir(rootfs.join("many")).unwrap().count(), 3000);
    assert!(started.elapsed() < Duration::from_millis(200), "the first ls took {:?}", started.elapsed());
    // Names and attributes are those of before; what is read now of the altered blob is an error, not wrong bytes.
    let error = std::fs::read(rootfs.join("many/2999")).unwrap_err().raw_os_error().unwrap();
    assert!([libc::EBADMSG, libc::EUCLEAN, libc::EIO].contains(&error), "{error}");
    let meta = std::fs::metadata(rootfs.join("many/2999")).unwrap();
    assert_eq!(meta.len(), file(&before, "/many/2999").size);
}

type Damage = (&'static str, fn(&mut Vec<u8>));

/// An index that was cut, altered or replaced by something else is made again.
fn damaged_indexes(world: &World) {
    let (manifest, _) = image(world);
    let kept = Kept::new(world);
    let before = read(&kept.rootfs(&kept.mount(), &manifest));
    let whole: Vec<(PathBuf, Vec<u8>)> =
        kept.files().into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    assert!(whole.len() >= 2, "{whole:?}");
    let damages: [Damage; 7] = [
        ("as it was", |_| ()),
        ("empty", |bytes| bytes.clear()),
        ("half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("first byte", |bytes| bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1)),
        ("a byte in the middle", |bytes| {
            let at = bytes.len() / 2;
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        }),
        ("zeros", |bytes| bytes.fill(0)),
        ("longer", |bytes| bytes.extend([0xff; 4096])),
    ];
    for (what, damage) in damages {
        for (path, bytes) in &whole {
            let mut bytes = bytes.clone();
            damage(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        }
        let mount = kept.mount();
        let after = read(&kept.rootfs(&mount, &manifest));
        assert!(before == after, "{what}: {:?}", before.differences(&after, start()));
    }
}

/// Files that were swapped are not taken for each other.
fn swapped_indexes(world: &World) {
    let (manifest, digests) = image(world);
    let kept = Kept::new(world);
    let before = read(&kept.rootfs(&kept.mount(), &manifest));
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap().to_owned();
    let of = |digest: &str| kept.files().into_iter().find(|path| path.to_str().unwrap().contains(&hex(digest)));
    if let (Some(a), Some(b)) = (of(&digests[0]), of(&digests[1])) {
        let (left, right) = (std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        std::fs::write(a, right).unwrap();
        std::fs::write(b, left).unwrap();
    } else {
        panic!("no index is called by its layer: {:?}", kept.files());
    }
    assert!(before == read(&kept.rootfs(&kept.mount(), &manifest)));
}

/// Bytes that do not compress, from `seed`.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

/// Reads anywhere in a large file are right, in any order, with an index that was just made and with one from disk.
fn reads_anywhere(world: &World) {
    let content = [noise(7, 12 << 20), vec![b'z'; 5 << 20], noise(9, 3 << 20)].concat();
    let archive = || tar(&[f("before", "b"), f("large", &content), f("after", "a"), unique(world)]);
    let kept = Kept::new(world);
    for (name, pack) in [("gzip", Layer::gzip as fn(Vec<u8>) -> Layer), ("zstd", Layer::zstd), ("plain", Layer::plain)]
    {
        let mut layout = Layout::new();
        let manifest = layout.image(&images::host(), &[pack(archive())]);
        layout.store(&world.containerd, &world.namespace, name, &manifest);
        for round in 0..2 {
            let mount = kept.mount();
            let rootfs = kept.rootfs(&mount, &manifest);
            let file = std::fs::File::open(rootfs.join("large")).unwrap();
            let mut at = 12345 + round;
            for _ in 0..60 {
                at = (at * 7919 + 104_729) % content.len();
                let end = content.len().min(at + 70_000);
                let mut bytes = vec![0; end - at];
                file.read_exact_at(&mut bytes, at as u64).unwrap();
                assert!(bytes == content[at..end], "{name}, round {round}: {at}..{end}");
            }
            assert!(std::fs::read(rootfs.join("large")).unwrap() == content, "{name}: all of it");
            assert_eq!(std::fs::read_to_string(rootfs.join("after")).unwrap(), "a");
        }
    }
}

crate::each_version!(no_layer_is_read, damaged_indexes, swapped_indexes, reads_anywhere);
