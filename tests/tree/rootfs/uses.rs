//! What root filesystems are used for: followed links, lower layers of an overlay, a containerd of which no file is
//! visible, layers made for lazy pulling.

use super::sources::{RICH, known, rich};
use super::*;
use crate::common::oci::{LAYER, Layout};
use crate::common::{Mount, images, sh};
use crate::support::tarball::{d, f, h, s};
use std::os::unix::fs::FileExt;

/// With `-o symlinks=inside` no link leads out of its root filesystem, and each says as many bytes as its size.
fn symlinks_inside(world: &World) {
    let layer = unique_layer(
        world,
        &[
            d("etc/"),
            f("etc/passwd", "the image's"),
            d("a/"),
            d("a/b/"),
            s("a/b/abs", "/etc/passwd"),
            s("a/b/root", "/"),
            s("a/b/up", "../../../../../etc/passwd"),
            s("a/b/plain", "../../etc/passwd"),
            s("top", "/etc/passwd"),
            h("a/second", "a/b/abs"),
        ],
    );
    let mut layout = Layout::new();
    let manifest = layout.image(&images::host(), &[layer]);
    layout.store(&world.containerd, &world.namespace, "links", &manifest);
    let mount = Mount::new(&world.containerd, &["-o", "symlinks=inside"]);
    let root = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
    let target = |name: &str| std::fs::read_link(root.join(name)).unwrap().to_str().unwrap().to_owned();
    for (name, expected) in [
        ("a/b/abs", "../../etc/passwd"),
        ("a/b/root", "../.."),
        ("a/b/up", "../../etc/passwd"),
        ("a/b/plain", "../../etc/passwd"),
        ("top", "etc/passwd"),
        ("a/second", "../etc/passwd"),
    ] {
        assert_eq!(target(name), expected, "{name}");
        assert_eq!(std::fs::symlink_metadata(root.join(name)).unwrap().len(), expected.len() as u64, "{name}");
        if name != "a/b/root" {
            assert_eq!(std::fs::read_to_string(root.join(name)).unwrap(), "the image's", "{name}");
        }
    }
    let verbatim = std::fs::read_link(rootfs_path(world, &manifest).join("a/b/abs")).unwrap();
    assert_eq!(verbatim.to_str(), Some("/etc/passwd"), "without the option");
}

/// The first open of a small file brings its bytes: the kernel asks for none. However many open at once, all see what is
/// in it, and nobody hangs.
fn small_files_come_with_their_open(world: &World) {
    let content = |n: usize| format!("{n:05}\n").repeat(900);
    let names: Vec<String> = (0..64).map(|n| format!("srv/{n}")).collect();
    let files: Vec<_> = names.iter().enumerate().map(|(n, name)| f(name, content(n))).collect();
    let layer = unique_layer(world, &[&[d("srv/")][..], &files, &[f("srv/large", "x".repeat(300_000))]].concat());
    let mut layout = Layout::new();
    let manifest = layout.image(&images::host(), &[layer]);
    layout.store(&world.containerd, &world.namespace, "small", &manifest);
    let mount = Mount::new(&world.containerd, &[]);
    let root = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
    let reads = || mount.requests()["read"];
    let read = |n: usize| assert_eq!(std::fs::read_to_string(root.join(&names[n])).unwrap(), content(n), "{n}");
    assert_eq!(std::fs::read_dir(root.join("srv")).unwrap().count(), 65);
    // Reading the metrics asks once or twice itself.
    let own = (reads(), reads());
    let before = reads() + own.1 - own.0;
    (0..32).for_each(read);
    (0..32).for_each(read);
    assert_eq!(reads(), before);
    assert_eq!(std::fs::read(root.join("srv/large")).unwrap().len(), 300_000);
    assert!(reads() > before + own.1 - own.0, "a large file is asked for");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (32..64).for_each(read));
        }
    });
}

/// The root directory answers by name which layer it came from: the topmost. Nothing is built to say so.
fn attributes_of_the_root(world: &World) {
    let (manifest, digests) = rich(world);
    let dir = format!("manifests/{}", oci::hex_of(&manifest));
    assert_eq!(world.xattr(&format!("{dir}/rootfs"), "user.ctrfs.layer").as_ref(), Ok(&digests[2]));
    let diff_id = world.value(&format!("{dir}/layers/02/diff_id"));
    assert_eq!(world.xattr(&format!("{dir}/rootfs"), "user.ctrfs.diff_id"), Ok(diff_id));
    assert_eq!(world.xattr(&format!("{dir}/rootfs"), "user.ctrfs.created_by").as_deref(), Ok("step 2"));
    assert_eq!(world.xattr(&format!("{dir}/layers/01/fs"), "user.ctrfs.layer").as_ref(), Ok(&digests[1]));
    assert!(world.mount().xattrs(&world.path(&format!("{dir}/rootfs"))).is_empty());
}

/// The kernel takes a root filesystem as the lower layer of an overlay, from blobs and from directories.
fn lower_layer(world: &World) {
    let (manifest, _) = rich(world);
    let work = world.containerd.dir.join(format!("overlay-{}", world.namespace));
    for round in ["blobs", "directories"] {
        let _view = (round == "directories").then(|| ctr_mount(world, RICH, &[]).unwrap());
        let ours = Mount::new(&world.containerd, &[]);
        let lower = ours.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
        let script = "set -e; mkdir -p \"$W/upper\" \"$W/work\" \"$W/m\"
            mount -t overlay -o \"lowerdir=$L,upperdir=$W/upper,workdir=$W/work\" overlay \"$W/m\"
            trap 'umount \"$W/m\"' EXIT
            cd \"$W/m\"
            cat opt/x implied/dir/file; echo; readlink opt/link
            echo more >> opt/x; rm etc/passwd; mkdir new; mv new opt/moved; chmod 600 opt/suid
            cat opt/x; ls etc; stat -c %a opt/suid opt/moved; ! test -e etc/passwd; cd /";
        let path = work.join(round);
        let vars = [("W", path.to_str().unwrap()), ("L", lower.to_str().unwrap())];
        let out = sh(script, &vars, 20).ok();
        let expected = "replacedf\n../etc/passwd\nreplacedmore\ngroup\n600\n755\n";
        assert_eq!(out, expected, "{round}");
        assert_eq!(std::fs::read_to_string(lower.join("opt/x")).unwrap(), "replaced", "{round}: what is below");
    }
}

/// containerd has its files where ctrfs does not see them, as in a container: blobs come over gRPC.
fn apart(world: &World) {
    let (manifest, digests) = rich(world);
    assert!(!blob_file(world, &digests[0]).exists(), "the content store is visible");
    // Somebody's mount tells of directories that are not here; they are not missed.
    world.containerd.rpc().view_snapshot(
        &world.namespace,
        "overlayfs",
        "view",
        &world.value(&format!("manifests/{}/layers/02/chain_id", oci::hex_of(&manifest))),
    );
    let (ours, files) = known(world.mount(), world, &manifest);
    assert_eq!(file(&ours, "/opt/x").size, 8);
    assert!(file(&ours, "/bin/busybox").size > 100_000 && !ours.files.contains_key(&b"/opt/gone"[..]));
    assert_eq!(files.iter().find(|(path, ..)| path == b"/opt/x").unwrap().2, digests[2]);
    // The same as where the store is visible.
    let seen = World::new(world.version());
    let mut layout = Layout::new();
    for digest in layout_of(world, &manifest) {
        let bytes = world.bytes(&format!("blobs/{}", digest.replace(':', "/")));
        layout.blobs.insert(digest, bytes);
    }
    layout.store(&seen.containerd, &seen.namespace, "same", &manifest);
    shown(&seen, &manifest).assert_shown(&ours, NEVER);
}

/// The digests that a manifest names, and its own.
fn layout_of(world: &World, manifest: &serde_json::Value) -> Vec<String> {
    let document = world.json(&format!("manifests/{}/manifest.json", oci::hex_of(manifest)));
    let layers = document["layers"].as_array().unwrap().iter();
    let named = layers.chain([&document["config"], manifest]);
    named.map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned()).collect()
}

/// What lazy pulling is made of: each member compressed by itself, and a table of contents as the last one.
fn members_alone(world: &World, bookkeeping: &[tarball::Member], pack: fn(Vec<u8>) -> Layer) -> (Vec<u8>, Vec<u8>) {
    let mut members = vec![d("usr/"), f("usr/large", vec![b'l'; 300_000]), f("usr/small", "s"), unique(world)];
    members.extend(bookkeeping.iter().cloned());
    let mut parts: Vec<Vec<u8>> = members.iter().map(|member| member.bytes()).collect();
    parts.push(vec![0; 1024]);
    let blob = parts.iter().flat_map(|part| pack(part.clone()).blob).collect();
    (parts.concat(), blob)
}

/// A layer as eStargz's tools write it (stargz-snapshotter docs/estargz.md): landmark, table of contents, footer.
fn estargz(world: &World) -> Layer {
    let bookkeeping = [
        f(".prefetch.landmark", [0xf]),
        f("stargz.index.json", "{\"version\":1,\"entries\":[{\"name\":\"not-there\",\"type\":\"dir\"}]}"),
    ];
    let (archive, mut blob) = members_alone(world, &bookkeeping, Layer::gzip);
    // The footer: an empty member whose extra field (SG) says where the table of contents begins.
    let extra = format!("{:016x}STARGZ", blob.len() / 2);
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff]);
    blob.extend(u16::try_from(extra.len() + 4).unwrap().to_le_bytes());
    blob.extend(b"SG");
    blob.extend(u16::try_from(extra.len()).unwrap().to_le_bytes());
    blob.extend(extra.as_bytes());
    blob.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    Layer { media_type: format!("{LAYER}+gzip"), blob, diff_id: oci::digest(&archive) }
}

/// A layer as zstd:chunked has it (containers/storage pkg/chunked): frames, then manifest, tar-split and footer in frames
/// that are skipped.
fn zstd_chunked(world: &World) -> Layer {
    let (archive, mut blob) = members_alone(world, &[], Layer::zstd);
    let skippable = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&0x184d_2a50u32.to_le_bytes()[..], &length, bytes].concat()
    };
    let at = blob.len() as u64;
    let manifest = zstd::encode_all(&b"{\"version\":1,\"entries\":[]}"[..], 3).unwrap();
    blob.extend(skippable(&manifest));
    blob.extend(skippable(&zstd::encode_all(&b"tar-split"[..], 3).unwrap()));
    let numbers = [at + 8, manifest.len() as u64, 26, 1, 0, 0, 0];
    let footer = [&numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>()[..], b"GNUlInUx"].concat();
    blob.extend(skippable(&footer));
    Layer { media_type: format!("{LAYER}+zstd"), blob, diff_id: oci::digest(&archive) }
}

/// The archive is the truth, not the table of contents; what the tools add to it is in it.
fn lazy_pulling(world: &World) {
    let since = start();
    for (name, layer) in [("estargz", estargz(world)), ("chunked", zstd_chunked(world))] {
        let mut layout = Layout::new();
        let manifest = layout.image(&images::host(), &[layer, unique_layer(world, &[f("usr/above", "a")])]);
        let image = format!("docker.io/library/{name}:1");
        layout.store(&world.containerd, &world.namespace, &image, &manifest);
        crate::common::eventually("the image is here", std::time::Duration::from_secs(5), || {
            rootfs_path(world, &manifest).exists()
        });
        let ours = shown(world, &manifest);
        let bookkeeping = [".prefetch.landmark", "stargz.index.json"];
        let listed = bookkeeping.iter().filter(|name| ours.files.contains_key(format!("/{name}").as_bytes())).count();
        assert_eq!(listed, if name == "estargz" { 2 } else { 0 }, "{name}");
        reference(world, &image).assert_shown(&ours, since);
        // A read in the middle begins at the member's own frame.
        let mut bytes = [0; 100];
        let large = std::fs::File::open(rootfs_path(world, &manifest).join("usr/large")).unwrap();
        large.read_exact_at(&mut bytes, 299_000).unwrap();
        assert_eq!(bytes, [b'l'; 100]);
    }
}

crate::each_version!(
    symlinks_inside,
    small_files_come_with_their_open,
    attributes_of_the_root,
    lower_layer,
    lazy_pulling
);

crate::each_version_of!(crate::common::World::apart; apart);
