//! What a file is known by: inode numbers, and which layer and build step it came from.

use super::*;
use crate::common::oci::Layout;
use crate::common::{Mount, images, sh};
use crate::support::tarball::{d, f, h, tar};
use std::collections::BTreeMap;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

/// Two images of one base: their manifests.
fn siblings(world: &World) -> [serde_json::Value; 2] {
    let base = tar(&[d("usr/"), f("usr/big", vec![b'b'; 1 << 20]), h("usr/again", "usr/big"), f("usr/small", "s")]);
    ["a", "b"].map(|name| {
        let own = tar(&[d("usr/"), f("usr/own", name), f("usr/small", format!("not as in the base: {name}"))]);
        let mut layout = Layout::new();
        let manifest = layout.image(&images::host(), &[Layer::gzip(base.clone()), Layer::gzip(own)]);
        layout.store(&world.containerd, &world.namespace, &format!("sibling:{name}"), &manifest);
        manifest
    })
}

/// The inode of every file.
fn inodes(root: &Path) -> BTreeMap<Vec<u8>, u64> {
    let tree = read(root);
    let number = |path: &Vec<u8>| {
        let below = Path::new(std::str::from_utf8(path).unwrap().trim_start_matches('/')).to_owned();
        std::fs::symlink_metadata(root.join(below)).unwrap().ino()
    };
    tree.files.keys().map(|path| (path.clone(), number(path))).collect()
}

/// A shared file is one inode, in both images; directories are never shared; all ways of asking agree, also later.
fn shared(world: &World) {
    let [a, b] = siblings(world);
    let (path_a, path_b) = (rootfs_path(world, &a), rootfs_path(world, &b));
    let (of_a, of_b) = (inodes(&path_a), inodes(&path_b));
    assert_eq!(of_a[&b"/usr/big"[..]], of_b[&b"/usr/big"[..]]);
    assert_eq!(of_a[&b"/usr/big"[..]], of_a[&b"/usr/again"[..]], "a hard link");
    for name in ["/usr", "/usr/own", "/usr/small", ""] {
        assert_ne!(of_a[name.as_bytes()], of_b[name.as_bytes()], "{name:?}");
    }
    for (root, all) in [(&path_a, &of_a), (&path_b, &of_b)] {
        for entry in std::fs::read_dir(root.join("usr")).unwrap() {
            let entry = entry.unwrap();
            let key = [b"/usr/", entry.file_name().as_encoded_bytes()].concat();
            assert_eq!(entry.ino(), all[&key], "readdir and stat of {:?}", entry.file_name());
        }
    }
    let again = Mount::new(&world.containerd, &[]);
    let elsewhere = again.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&a))));
    assert_eq!(inodes(&elsewhere), of_a, "another mount");
    assert_eq!(std::fs::metadata(path_a.join("usr/big")).unwrap().nlink(), 2, "as the image says");
}

/// `du -s A B` counts what both have once.
fn disk_usage(world: &World) {
    let [a, b] = siblings(world);
    let paths = [rootfs_path(world, &a), rootfs_path(world, &b)].map(|path| path.to_str().unwrap().to_owned());
    let du = |flags: &str| {
        let text = sh(&format!("du {flags} -- \"$A\" \"$B\""), &[("A", &paths[0]), ("B", &paths[1])], 20).ok();
        let sizes: Vec<u64> = text.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
        (sizes[0], sizes[1])
    };
    for flags in ["-sk", "-sk --apparent-size"] {
        let (first, second) = du(flags);
        assert!((1024..1200).contains(&first), "du {flags}: {first} KiB in the first image");
        assert!(second < 100, "du {flags}: {second} KiB more in the second one");
    }
}

/// Which layer a file came from, and which build step made it: by name, not listed.
fn attribution(world: &World) {
    let image = world.debian();
    let manifest = world.json(&format!("images/{image}/manifest.json"));
    let config = world.json(&format!("images/{image}/config.json"));
    let layer = |n: usize, path: &str| {
        let path = format!("images/{image}/rootfs/{path}");
        let get = |name: &str| world.xattr(&path, &format!("user.ctrfs.{name}"));
        assert_eq!(get("layer").as_deref(), Ok(manifest["layers"][n]["digest"].as_str().unwrap()), "{path}");
        assert_eq!(get("diff_id").as_deref(), Ok(config["rootfs"]["diff_ids"][n].as_str().unwrap()), "{path}");
        assert_eq!(get("nothing"), Err(libc::ENODATA));
        let listed = world.mount().xattrs(&world.path(&path));
        assert!(!listed.iter().any(|name| name.starts_with("user.ctrfs.")), "{path} lists {listed:?}");
        get("created_by").unwrap()
    };
    assert!(layer(0, "bin/busybox").contains("base system"));
    assert!(layer(2, "srv/app/app.py").contains("COPY app"));
    assert!(layer(2, "srv/app").contains("COPY app"), "a directory");
    // Not of a symlink: the kernel has no user.* there, and does not even ask (xattr(7)).
    let python =
        std::fs::read_link(world.mount().at_path(&world.path(&format!("images/{image}/rootfs/usr/bin/python3"))));
    assert!(layer(1, &format!("usr/bin/{}", python.unwrap().display())).contains("python3-minimal"));
}

crate::each_version!(shared, disk_usage, attribution);
