//! `hidden/`: what upper layers deleted or replaced stands by layer and path, and can be read.

use crate::common::tar::{Header, Tar};
use crate::common::{World, eventually, images, oci};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

/// Stores an image of these layers and gives the directory of its manifest.
fn image(world: &World, layers: Vec<Vec<u8>>) -> String {
    let mut layout = oci::Layout::new();
    let layers: Vec<oci::Layer> = layers.into_iter().map(oci::Layer::gzip).collect();
    let manifest = layout.image(&images::host(), &layers);
    layout.store(&world.containerd, &world.namespace, "registry.test/secret:1", &manifest);
    eventually("the image is here", Duration::from_secs(2), || world.exists("images/registry.test/secret:1"));
    format!("manifests/{}", oci::hex_of(&manifest))
}

fn secret() -> Header<'static> {
    Header { mode: 0o600, uid: 12, gid: 34, mtime: 1_000_000_000, ..Header::new("root/.secret", b'0') }
}

/// Files deleted, files replaced, directories deleted whole, made opaque, replaced by a file: each in its layer.
fn by_layer_and_path(world: &World) {
    let first = Tar::new()
        .entry(&Header { mode: 0o700, ..Header::new("root/", b'5') }, b"")
        .entry(&secret(), b"the password\n")
        .dir("etc/")
        .file("etc/conf", "old")
        .file("etc/kept", "kept")
        .dir("srv/")
        .dir("srv/data/")
        .dir("srv/data/deep/")
        .file("srv/data/deep/file", "deep")
        .symlink("srv/data/link", "deep/file")
        .file("srv/data-x", "beside")
        .dir("opt/")
        .file("opt/a", "opaque")
        .dir("dir/")
        .file("dir/inside", "inside")
        .finish();
    let second = Tar::new()
        .whiteout("root/", ".secret")
        .file("etc/conf", "new")
        .whiteout("srv/", "data")
        .dir("opt/")
        .file("opt/.wh..wh..opq", "")
        .file("opt/b", "b")
        .whiteout("", "dir")
        .finish();
    let third = Tar::new().file("dir", "a file").whiteout("etc/", "conf").finish();
    let dir = image(world, vec![first, second, third]);
    let found = world.sh(&format!("cd {dir}/hidden && find . -mindepth 1 | sort"), 20).ok();
    let wanted = "./00 ./00/dir ./00/dir/inside ./00/etc ./00/etc/conf ./00/opt ./00/opt/a ./00/root ./00/root/.secret \
         ./00/srv ./00/srv/data ./00/srv/data/deep ./00/srv/data/deep/file ./00/srv/data/link ./01 ./01/etc ./01/etc/conf";
    assert_eq!(found.split_whitespace().collect::<Vec<_>>(), wanted.split_whitespace().collect::<Vec<_>>());
    for (path, text) in [
        ("00/root/.secret", "the password\n"),
        ("00/etc/conf", "old"),
        ("01/etc/conf", "new"),
        ("00/srv/data/link", "deep"),
        ("00/opt/a", "opaque"),
        ("00/dir/inside", "inside"),
    ] {
        assert_eq!(world.read(&format!("{dir}/hidden/{path}")), text, "{path}");
        assert!(!world.exists(&format!("{dir}/rootfs/{}", &path[3..])), "{path} is not in the root filesystem");
    }
    for path in ["02", "0", "000", "00/etc/kept", "00/nope", "00/etc/conf-", "01/root"] {
        assert!(!world.exists(&format!("{dir}/hidden/{path}")), "{path}");
    }
}

/// What is hidden has the attributes that its layer gives it, costs nothing, and says which step made it.
fn attributes(world: &World) {
    let first = Tar::new()
        .entry(&Header { mode: 0o700, uid: 5, ..Header::new("root/", b'5') }, b"")
        .entry(&secret(), b"the password\n")
        .finish();
    let dir = image(world, vec![first, Tar::new().whiteout("root/", ".secret").finish()]);
    let path = format!("{dir}/hidden/00/root/.secret");
    let stat = std::fs::metadata(world.mount().at_path(&world.path(&path))).unwrap();
    assert_eq!(
        (stat.permissions().mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime()),
        (0o600, 12, 34, 1_000_000_000)
    );
    assert_eq!((stat.len(), stat.blocks()), (13, 0));
    let layer = world.mount().at_path(&world.path(&format!("{dir}/layers/00/fs/root/.secret")));
    assert_eq!(stat.ino(), std::fs::metadata(layer).unwrap().ino(), "it is the file of the layer");
    let above = world.mount().at_path(&world.path(&format!("{dir}/hidden/00/root")));
    let above = std::fs::metadata(above).unwrap();
    assert_eq!((above.permissions().mode() & 0o7777, above.uid()), (0o700, 5));
    assert_eq!(world.xattr(&path, "user.ctrfs.created_by"), Ok("step 0".into()));
    assert_eq!(world.value(&format!("{dir}/layers/00/digest")), world.xattr(&path, "user.ctrfs.layer").unwrap());
    assert_eq!(world.sh(&format!("du -s {dir}/hidden | cut -f1"), 5).ok(), "0\n");
    assert_eq!(world.resolved("images/registry.test/secret:1/hidden"), format!("{dir}/hidden"));
}

/// An image that hides nothing has an empty directory, one of a single layer has none.
fn nothing(world: &World) {
    let dir = image(world, vec![Tar::new().file("a", "").finish(), Tar::new().file("b", "").finish()]);
    assert_eq!(world.ls(&format!("{dir}/hidden")), Vec::<String>::new());
    let tiny = world.tiny();
    assert!(!world.exists(&format!("images/{tiny}/hidden")));
}

/// Thirty thousand files that a later step changed the owner of are listed at once.
fn many(world: &World) {
    let files = |uid: u32| {
        let mut tar = Tar::new().dir("app/");
        for n in 0..30_000 {
            tar = tar.entry(&Header { uid, ..Header::new(&format!("app/file{n}"), b'0') }, b"x");
        }
        tar.finish()
    };
    let dir = image(world, vec![files(0), files(1000)]);
    let count = world.sh(&format!("find {dir}/hidden -type f -uid 0 | wc -l"), 20);
    assert_eq!(count.out.trim(), "30000", "{}", count.err);
}

crate::each_version!(by_layer_and_path, attributes, nothing, many);
