//! `images import` and `import`: archives, as `ctr` of the same version takes them in.

use super::pull::unique;
use crate::common::holdings::{assert_same, collect, holdings};
use crate::common::tar::Tar;
use crate::common::{Version, World, images, oci};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn scratch(world: &World, name: &str) -> PathBuf {
    let dir = world.containerd.dir.join(format!("{}-archives", world.namespace));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

/// An archive as `docker save` writes it: two images, of which one has two names and one none.
fn docker(world: &World) -> Vec<u8> {
    let own = Tar::new().file("own", &world.namespace).finish();
    let layers = [images::busybox_layer(), own];
    let config = |n: usize| {
        let architecture = images::host().replace("linux/", "");
        let ids: Vec<String> = layers[..n].iter().map(|layer| oci::digest(layer)).collect();
        json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": ids}})
        .to_string()
    };
    let saved = json!([
        {"Config": "one.json", "RepoTags": ["two-names:1", "localhost:5000/b/it"], "Layers": ["0/layer.tar", "1/layer.tar"]},
        {"Config": "two.json", "RepoTags": null, "Layers": ["2/layer.tar"]},
    ]);
    Tar::new()
        .dir("0/")
        .file("0/layer.tar", &layers[0])
        .file("0/VERSION", "1.0")
        .file("1/layer.tar", &layers[1])
        .symlink("2/layer.tar", "../0/layer.tar")
        .file("one.json", config(2))
        .file("two.json", config(1))
        .file("repositories", "{}")
        .file("manifest.json", saved.to_string())
        .finish()
}

/// A layout with several images, named in all ways, for several platforms.
fn several(world: &World, path: &Path) {
    let (mut layout, here) = unique(world, 1);
    let other = layout.image("linux/s390x", &[oci::Layer::gzip(vec![0; 1024])]);
    let index = layout.index(&[other.clone(), here.clone()]);
    let named = |target: &Value, annotations: Value| {
        let mut target = target.clone();
        target["annotations"] = annotations;
        target
    };
    let of_containerd =
        json!({"io.containerd.image.name": "docker.io/a/named:1", "org.opencontainers.image.ref.name": "1"});
    layout.save_index(
        &[
            named(&here, json!({"org.opencontainers.image.ref.name": "tag"})),
            named(&here, json!({"org.opencontainers.image.ref.name": "docker.io/a/full:2"})),
            named(&index, of_containerd),
            named(&other, json!({"x": "nameless"})),
        ],
        path,
    );
}

/// What is made of an archive, and what it is called, is what `ctr images import` of the same version makes and calls it.
fn as_ctr_imports(world: &World) {
    let (one, many, gzip) =
        (scratch(world, "docker.tar"), scratch(world, "several.tar"), scratch(world, "several.tgz"));
    std::fs::write(&one, docker(world)).unwrap();
    several(world, &many);
    std::fs::write(&gzip, oci::Layer::gzip(std::fs::read(&many).unwrap()).blob).unwrap();
    let modern = world.version() >= Version::V2;
    let cases = [
        (&one, ""),
        (&one, "--digests --base-name docker.io/a/b"),
        (&one, "--index-name docker.io/a/index:1 --no-unpack"),
        (&many, "--no-unpack"),
        (&many, "--no-unpack --base-name docker.io/a/full"),
        (&many, "--no-unpack --digests"),
        (&many, "--no-unpack --digests --skip-digest-for-named --base-name x/y"),
        (&many, "--no-unpack --all-platforms"),
        (&many, "--no-unpack --platform linux/s390x"),
        (&gzip, "--no-unpack"),
    ];
    for (archive, flags) in cases {
        let (ours, theirs) = (World::new(world.version()), World::new(world.version()));
        let what = format!("images import {flags} {}", archive.display());
        ours.order("", &what);
        let plain = if archive == &gzip { &many } else { archive };
        let words = format!("images import {flags} {}", plain.display());
        let done = theirs.containerd.try_ctr(&theirs.namespace, &words.split_whitespace().collect::<Vec<_>>());
        assert_eq!(done.code, Some(0), "{words}: {done:?}");
        collect(&theirs);
        // From 2.0 on `ctr` does not unpack an image by its digest in every case; what is held is the same but for that.
        if !modern || flags.contains("--no-unpack") {
            assert_same(&ours, &theirs, &what);
        }
        let names = |w: &World| holdings(w).into_keys().filter(|key| key.starts_with("image")).collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{what}");
    }
}

/// What is written to `import` is imported, compressed or not; the write that brings the end waits for it.
fn from_a_pipe(world: &World) {
    for (n, (layout, target)) in [unique(world, 500), images::zstd()].into_iter().enumerate() {
        let tar = scratch(world, "piped.tar");
        layout.save(&target, &format!("docker.io/library/piped:{n}"), &tar);
        for (way, reader) in
            [("plain", "cat"), ("gzip", "gzip -c"), ("zstd", "zstd -qc"), ("slow", "dd bs=777 status=none <")]
        {
            let script = format!(
                "{reader} {} >import && test -e images/docker.io/library/piped:{n}/manifest.json",
                tar.display()
            );
            let done = world.sh(&script, 60);
            assert_eq!(done.code, Some(0), "{way}: {done:?} {}", world.read("error"));
            assert_eq!(world.read("error"), "ok\n");
            assert!(
                world.read(&format!("images/docker.io/library/piped:{n}/check")).contains("unpacked=true"),
                "{way}"
            );
            world.order("", &format!("images delete --sync docker.io/library/piped:{n}"));
        }
    }
    assert_eq!(world.sh("cat jobs/*/state | sort -u", 10).ok(), "done\n");
    assert_eq!(world.containerd.rpc().leases(&world.namespace).len(), 0);
}

/// An archive that is cut short fails when it is closed, and says so; bytes that are no archive fail as they are written.
fn a_pipe_that_breaks(world: &World) {
    let (layout, target) = unique(world, 500);
    let tar = scratch(world, "broken.tar");
    layout.save(&target, "docker.io/library/broken:1", &tar);
    let bytes = std::fs::read(&tar).unwrap();
    for cut in [700, bytes.len() / 2, bytes.len() - 2048] {
        std::fs::write(&tar, &bytes[..cut]).unwrap();
        world.sh(&format!("cat {} >import", tar.display()), 20).ok();
        let told = || world.read("error").contains("cut short");
        crate::common::eventually(&format!("{cut}: {}", world.read("error")), Duration::from_secs(5), told);
    }
    let mut import = std::fs::File::options().write(true).open(world.mount().at_path(&world.path("import"))).unwrap();
    let refused = import.write_all(&[b'x'; 2048]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EUCLEAN), "{refused}");
    drop(import);
    collect(world);
    assert_eq!(holdings(world), Default::default());
    assert_eq!(world.ls("ingests"), [""; 0]);
    // The writer of a long one is killed.
    std::fs::write(&tar, &bytes).unwrap();
    world.sh(&format!("bash -c 'exec 3>import; head -c 300000 {} >&3; kill -9 $$'", tar.display()), 20);
    let told = || world.read("error").contains("cut short");
    crate::common::eventually("it ends with its writer", Duration::from_secs(5), told);
    let gone = || world.ls("ingests").is_empty();
    crate::common::eventually("what it began is put away", Duration::from_secs(5), gone);
}

/// An archive by a stranger: each way to be wrong has its errno, and nothing of it stays.
fn hostile(world: &World) {
    let (layout, target) = unique(world, 1);
    let good = scratch(world, "good.tar");
    layout.save(&target, "1", &good);
    let index = json!({"schemaVersion": 2, "manifests": [target]}).to_string();
    let head = || Tar::new().file("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
    let zeros = "0".repeat(64);
    for (name, bytes, errno) in [
        ("empty", Vec::new(), libc::EUCLEAN),
        ("only its end", vec![0; 1024], libc::EUCLEAN),
        ("no index", head().finish(), libc::EUCLEAN),
        ("no json", head().file("index.json", "{").finish(), libc::EUCLEAN),
        (
            "another version",
            Tar::new().file("oci-layout", r#"{"imageLayoutVersion": "2.0.0"}"#).finish(),
            libc::EOPNOTSUPP,
        ),
        ("nothing that it names", head().file("index.json", &index).finish(), libc::EUCLEAN),
        (
            "a blob that lies",
            head().file(&format!("blobs/sha256/{zeros}"), "x").file("index.json", &index).finish(),
            libc::EBADMSG,
        ),
        ("a way out", head().file("../../etc/passwd", "x").finish(), libc::EUCLEAN),
        ("a link out", head().symlink("a", "../../etc").finish(), libc::EUCLEAN),
        (
            "docker's, no config",
            Tar::new().file("manifest.json", r#"[{"Config": "x", "Layers": []}]"#).finish(),
            libc::EUCLEAN,
        ),
        ("docker's, no json", Tar::new().file("manifest.json", "[").finish(), libc::EUCLEAN),
        ("a text", b"hello\n".repeat(1000), libc::EUCLEAN),
        ("a broken gzip", [&[0x1f, 0x8b, 8][..], &[7; 1000]].concat(), libc::EUCLEAN),
    ] {
        let path = scratch(world, "bad.tar");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            world.refused("", &format!("images import {}", path.display())),
            errno,
            "{name}: {}",
            world.read("error")
        );
    }
    assert_eq!(world.refused("", "images import /does/not/exist"), libc::ENOENT);
    assert_eq!(world.refused("", "images import"), libc::EINVAL);
    assert_eq!(world.refused("", "images import relative.tar"), libc::EINVAL);
    collect(world);
    assert_eq!(holdings(world), Default::default());
    assert_eq!(world.ls("ingests"), [""; 0]);
}

/// `--tag` names the only image; an image that is there is moved, and its layers may go once they are unpacked.
fn flags(world: &World) {
    let (layout, target) = unique(world, 1);
    let tar = scratch(world, "one.tar");
    layout.save(&target, "whatever", &tar);
    let tar = tar.display();
    world.order("", &format!("images import --tag docker.io/library/mine:1 --label a=b {tar}"));
    world.order("", &format!("images import --tag docker.io/library/mine:1 {tar}"));
    assert_eq!(world.ls("images/docker.io/library"), ["mine:1"]);
    assert_eq!(world.value("images/docker.io/library/mine:1/digest"), target["digest"].as_str().unwrap());
    let many = scratch(world, "several.tar");
    several(world, &many);
    assert_eq!(world.refused("", &format!("images import --tag x/y:1 {}", many.display())), libc::EINVAL);
    world.order("", "images delete --sync docker.io/library/mine:1");
    world.order("", &format!("images import --tag docker.io/library/mine:2 --discard-unpacked-layers {tar}"));
    collect(world);
    let image = "images/docker.io/library/mine:2";
    crate::common::eventually("the layers are gone", Duration::from_secs(5), || {
        world.read(&format!("{image}/check")).starts_with("status=incomplete")
    });
    world.ctr(&["run", "--rm", "docker.io/library/mine:2", &world.new_id("of"), "true"]);
    let docker_tar = scratch(world, "docker.tar");
    std::fs::write(&docker_tar, docker(world)).unwrap();
    world.order("", &format!("images import --compress-blobs {}", docker_tar.display()));
    assert!(world.read("images/docker.io/library/two-names:1/layers/00/media_type").contains("gzip"));
    world.ctr(&["run", "--rm", "docker.io/library/two-names:1", &world.new_id("of"), "true"]);
}

crate::each_version!(as_ctr_imports, from_a_pipe, a_pipe_that_breaks, hostile, flags);
