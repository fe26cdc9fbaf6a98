//! `images/` and `manifests/`: references as paths, raw documents, relations; each value as `ctr images …` prints it.

use crate::common::{World, eventually, images, oci};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The reference is the path below `images/`; `digest`, `name` and `media_type` are those of `ctr images ls`.
fn values(world: &World) {
    let tiny = world.tiny();
    let table = world.ctr(&["images", "ls"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let dir = format!("images/{tiny}");
    assert_eq!(world.value(&format!("{dir}/name")), row[0]);
    assert_eq!(world.value(&format!("{dir}/media_type")), row[1]);
    assert_eq!(world.value(&format!("{dir}/digest")), row[2]);
    let size: f64 = world.value(&format!("{dir}/size")).parse().unwrap();
    let (number, unit) = (row[3].parse::<f64>().unwrap(), row[4]);
    let unit = [("B", 1.0), ("KiB", 1024.0), ("MiB", 1048576.0)].iter().find(|(name, _)| *name == unit).unwrap().1;
    assert!((size / unit - number).abs() <= 0.06, "{size} B is not {number} of {unit}");
    assert_eq!(world.value(&format!("{dir}/local_size")), world.value(&format!("{dir}/size")));
    for name in ["created", "updated"] {
        assert!(world.value(&format!("{dir}/{name}")).starts_with("20"), "{name}");
    }
}

/// Documents are served byte for byte: what `sha256sum` says of `manifest.json` is its digest.
fn documents(world: &World) {
    let image = world.debian();
    let dir = format!("images/{image}");
    let digest = world.value(&format!("{dir}/digest"));
    assert_eq!(oci::digest(&world.bytes(&format!("{dir}/manifest.json"))), digest);
    let manifest = world.json(&format!("{dir}/manifest.json"));
    let config = manifest["config"]["digest"].as_str().unwrap();
    assert_eq!(oci::digest(&world.bytes(&format!("{dir}/config.json"))), config);
    assert_eq!(world.read(&format!("{dir}/manifest.json")), world.ctr(&["content", "get", &digest]));
    assert_eq!(world.read(&format!("{dir}/config.json")), world.ctr(&["content", "get", config]));
    assert_eq!(world.json(&format!("{dir}/descriptor.json"))["digest"], digest);
    assert!(!world.exists(&format!("{dir}/index.json")), "the target is no index");
}

/// Layers are numbered from the bottom and carry digest, diff ID, chain ID, size, their blob and their snapshot.
fn layers(world: &World) {
    let image = world.debian();
    let dir = format!("images/{image}");
    let manifest = world.json(&format!("{dir}/manifest.json"));
    let config = world.json(&format!("{dir}/config.json"));
    let layers = world.ls(&format!("{dir}/layers"));
    assert_eq!(layers.len(), manifest["layers"].as_array().unwrap().len());
    let mut chain = String::new();
    for (n, layer) in layers.iter().enumerate() {
        let at = |name: &str| format!("{dir}/layers/{layer}/{name}");
        let (descriptor, diff_id) = (&manifest["layers"][n], config["rootfs"]["diff_ids"][n].as_str().unwrap());
        chain = if n == 0 { diff_id.to_owned() } else { oci::digest(format!("{chain} {diff_id}").as_bytes()) };
        assert_eq!(world.value(&at("digest")), descriptor["digest"].as_str().unwrap());
        assert_eq!(world.value(&at("media_type")), descriptor["mediaType"].as_str().unwrap());
        assert_eq!(world.value(&at("size")), descriptor["size"].to_string());
        assert_eq!(world.value(&at("diff_id")), diff_id);
        assert_eq!(world.value(&at("chain_id")), chain);
        assert_eq!(world.resolved(&at("blob")), format!("blobs/{}", world.value(&at("digest")).replace(':', "/")));
        assert_eq!(world.resolved(&at("snapshot")), format!("snapshots/overlayfs/{chain}"));
    }
    let history = world.read(&format!("{dir}/history"));
    assert_eq!(history.lines().count(), config["history"].as_array().unwrap().len(), "{history}");
    assert!(history.contains("apt-get install python3-minimal"), "{history}");
    assert!(world.value(&format!("{dir}/layers/{}/created_by", layers[1])).contains("python3"));
}

/// An image's manifest lives at one path; everything else that shows it is a relative symlink to it.
fn one_truth(world: &World) {
    let tiny = world.tiny();
    let dir = format!("images/{tiny}");
    let hex = world.value(&format!("{dir}/digest")).replace("sha256:", "");
    let home = format!("manifests/{hex}");
    assert_eq!(world.ls("manifests"), [hex.as_str()]);
    assert_eq!(world.ls(&format!("{dir}/manifests")), [hex.as_str()]);
    assert_eq!(world.resolved(&format!("{dir}/manifests/{hex}")), home);
    let platform = images::host().replace('/', "-");
    assert_eq!(world.resolved(&format!("{dir}/platforms/{platform}")), home);
    for name in ["manifest.json", "config.json", "history", "layers"] {
        assert!(!world.link(&format!("{dir}/{name}")).starts_with('/'), "{name} is relative");
        assert_eq!(world.resolved(&format!("{dir}/{name}")), format!("{home}/{name}"));
    }
    assert_eq!(world.value(&format!("{home}/platform")), images::host());
    let back = world.sh(&format!("readlink -v -f {home}/images/*"), 5).ok();
    assert!(back.trim_end().ends_with(&dir), "{back}");
}

/// An image is also found as one encoded component: a symlink that is not listed and has no colon.
fn encoded_name(world: &World) {
    let tiny = world.tiny();
    let encoded = format!("images/{}", tiny.replace('/', "%2F").replace(':', "%3A"));
    assert_eq!(world.link(&encoded), tiny);
    assert_eq!(world.resolved(&encoded), format!("images/{tiny}"));
    assert_eq!(world.ls("images"), ["docker.io"]);
    assert_eq!(world.ls("images/docker.io/library"), ["tiny:latest"]);
    assert!(!world.exists("images/docker.io/library/tiny"), "no image of this name");
}

/// Platforms that were never pulled are absent, and no listing fails for them.
fn half_pulled(world: &World) {
    let (layout, index, here, absent) = images::half_pulled();
    layout.store(&world.containerd, &world.namespace, "docker.io/library/half:1", &index);
    let dir = "images/docker.io/library/half:1";
    eventually("the image is here", Duration::from_secs(2), || world.exists(dir));
    assert_eq!(oci::digest(&world.bytes(&format!("{dir}/index.json"))), index["digest"].as_str().unwrap());
    assert_eq!(
        world.resolved(&format!("{dir}/manifest.json")),
        format!("manifests/{}/manifest.json", oci::hex_of(&here))
    );
    let gone = format!("manifests/{}", oci::hex_of(&absent));
    for name in ["manifest.json", "config.json", "layers", "rootfs"] {
        assert!(!world.exists(&format!("{gone}/{name}")), "{name} of a manifest that is not here");
    }
    let (size, local): (u64, u64) = (
        world.value(&format!("{dir}/size")).parse().unwrap(),
        world.value(&format!("{dir}/local_size")).parse().unwrap(),
    );
    assert!(local > 0 && size > 0);
    let found = world.sh("find images manifests -ls > /dev/null; cat $(find images -name manifest.json)", 10).ok();
    assert!(found.contains("layers"), "{found}");
}

/// An attestation has a manifest directory, and neither a platform's link nor a root file system.
fn attestation(world: &World) {
    let (layout, index, here, attestation) = images::attested();
    layout.store(&world.containerd, &world.namespace, "attested:1", &index);
    eventually("the image is here", Duration::from_secs(2), || world.exists("images/attested:1"));
    assert_eq!(world.ls("images/attested:1/platforms"), [images::host().replace('/', "-")]);
    assert_eq!(world.ls("images/attested:1/manifests").len(), 2);
    let dir = format!("manifests/{}", oci::hex_of(&attestation));
    assert_eq!(oci::digest(&world.bytes(&format!("{dir}/manifest.json"))), attestation["digest"].as_str().unwrap());
    assert!(world.read(&format!("{dir}/annotations")).contains("attestation-manifest"));
    assert!(!world.exists(&format!("{dir}/rootfs")));
    assert_eq!(world.resolved("images/attested:1/layers"), format!("manifests/{}/layers", oci::hex_of(&here)));
}

/// An artifact shows its documents and layers, and no root file system.
fn artifact(world: &World) {
    let (layout, manifest) = images::artifact();
    layout.store(&world.containerd, &world.namespace, "registry.test/chart:1", &manifest);
    let dir = "images/registry.test/chart:1";
    eventually("the image is here", Duration::from_secs(2), || world.exists(dir));
    assert_eq!(oci::digest(&world.bytes(&format!("{dir}/manifest.json"))), manifest["digest"].as_str().unwrap());
    assert_eq!(world.json(&format!("{dir}/config.json"))["name"], "chart");
    assert!(world.ls(&format!("{dir}/platforms")).is_empty() && !world.exists(&format!("{dir}/rootfs")));
    let errors = world.sh(&format!("grep -r x {dir} manifests > /dev/null"), 10).err;
    assert!(errors.is_empty(), "{errors}");
}

/// Any name that containerd takes is reached by one spelling and no other, and comes back from `name`.
fn names_from_hell(world: &World) {
    let (layout, manifest) = images::artifact();
    let long = "x".repeat(5000);
    let hashed = format!("%h{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&long)));
    let cases = [
        (" ", " "),
        ("a\nb", "a%0Ab"),
        ("../up", "%2E%2E/up"),
        ("./here", "%2E/here"),
        ("a//b", "a/%/b"),
        ("per%cent", "per%25cent"),
        ("ü:1", "ü:1"),
        ("UPPER:case", "UPPER:case"),
        ("sha256:abc", "sha256:abc"),
        (&long, &hashed),
    ];
    for (name, _) in &cases {
        layout.store(&world.containerd, &world.namespace, name, &manifest);
    }
    eventually("the images are here", Duration::from_secs(2), || world.exists("images/sha256:abc"));
    for (name, path) in &cases {
        // The file holds the name and a newline, whatever the name is.
        assert_eq!(world.read(&format!("images/{path}/name")), format!("{name}\n"), "{path}");
    }
    for wrong in ["per%63ent", "a%0ab", "%2e%2e/up", "a/b"] {
        assert!(!world.exists(&format!("images/{wrong}/name")), "{wrong} is another spelling");
    }
    let count = world.sh("find images -name digest | wc -l", 20).ok();
    assert_eq!(count.trim(), cases.len().to_string());
}

/// Where a reference is the first part of another's, its directory shows both.
fn prefix_of_another(world: &World) {
    let (layout, manifest) = images::artifact();
    for name in ["a", "a/b", "a/name"] {
        layout.store(&world.containerd, &world.namespace, name, &manifest);
    }
    eventually("the images are here", Duration::from_secs(2), || world.exists("images/a/b"));
    assert_eq!(world.value("images/a/name"), "a");
    assert_eq!(world.value("images/a/b/name"), "a/b");
    assert_eq!(world.value("images/a%2Fname/name"), "a/name", "its own files win; the encoded form is the directory");
}

/// What `ctr` does elsewhere is here within 100 ms: tags, labels, removals.
fn live(world: &World) {
    let tiny = world.tiny();
    assert!(world.exists(&format!("images/{tiny}")));
    let inode = |path: &str| std::fs::metadata(world.mount().at_path(&world.path(path))).unwrap().ino();
    world.ctr(&["images", "tag", tiny, "docker.io/library/other:1"]);
    let took =
        eventually("the tag is here", Duration::from_secs(2), || world.exists("images/docker.io/library/other:1"));
    assert!(took < Duration::from_millis(100), "after {took:?}");
    assert_ne!(inode(&format!("images/{tiny}")), inode("images/docker.io/library/other:1"));
    assert_eq!(world.ls("manifests").len(), 1, "both are of one manifest");
    world.ctr(&["images", "label", tiny, "colour=blue"]);
    eventually("the label is here", Duration::from_millis(500), || {
        world.read(&format!("images/{tiny}/labels")).lines().any(|line| line == "colour=blue")
    });
    assert_eq!(world.xattr(&format!("images/{tiny}"), "user.label.colour"), Ok("blue".into()));
    world.ctr(&["images", "rm", tiny]);
    eventually("the image is gone", Duration::from_millis(500), || !world.exists(&format!("images/{tiny}")));
    assert_eq!(world.ls("images/docker.io/library"), ["other:1"]);
}

/// `check` and `usage` say what `ctr images check` and `usage` say.
fn check_and_usage(world: &World) {
    let tiny = world.tiny();
    let line = world.ctr(&["images", "check"]);
    let row: Vec<&str> = line.lines().nth(1).unwrap().split_whitespace().collect();
    let check = world.read(&format!("images/{tiny}/check"));
    assert!(check.contains(row[3]), "{check} lacks the status {}", row[3]);
    assert!(!world.read(&format!("images/{tiny}/usage")).is_empty());
}

/// A manifest that is no JSON, or nested without end, is served as it is and breaks nothing around it.
fn manifests_from_hell(world: &World) {
    let deep = "[".repeat(200_000);
    for (name, text) in [("text", "no JSON"), ("empty", "{}"), ("deep", &deep), ("null", "null"), ("array", "[[]]")] {
        let mut layout = oci::Layout::new();
        let manifest = layout.blob(oci::MANIFEST, text);
        layout.store(&world.containerd, &world.namespace, name, &manifest);
    }
    let mut layout = oci::Layout::new();
    let odd = json!({"schemaVersion": 2, "config": {"digest": "sha256:../../etc", "size": -1}, "layers": [null, {"digest": 5}]});
    let odd = layout.json(oci::MANIFEST, &odd);
    layout.store(&world.containerd, &world.namespace, "odd", &odd);
    eventually("the images are here", Duration::from_secs(2), || world.exists("images/odd"));
    assert_eq!(world.read("images/text/manifest.json"), "no JSON");
    assert_eq!(world.read("images/deep/manifest.json"), deep);
    let done = world.sh("find images manifests -ls > /dev/null && cat */*/*.json > /dev/null", 20);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

/// A manifest of a hundred megabytes is neither held in memory nor a reason to stop.
fn huge_manifest(world: &World) {
    let mut layout = oci::Layout::new();
    let mut text = String::from("{\"layers\": [");
    text.push_str(&"{},".repeat(33 << 20));
    let huge = layout.blob(oci::MANIFEST, text);
    layout.store(&world.containerd, &world.namespace, "huge", &huge);
    eventually("the image is here", Duration::from_secs(2), || world.exists("images/huge"));
    let done = world.sh("find images manifests -ls > /dev/null", 20);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.mount().pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100 << 10, "it took {peak} kB");
}

/// A thousand images in one directory are listed, and found one by one.
fn a_thousand(world: &World) {
    let (layout, manifest) = images::artifact();
    layout.store(&world.containerd, &world.namespace, "registry.test/many/first:1", &manifest);
    let names = (0..1000).map(|n| format!("registry.test/many/image{n}:latest"));
    world.containerd.rpc().create_images(&world.namespace, names, &manifest);
    eventually("the last one is here", Duration::from_secs(3), || {
        world.exists("images/registry.test/many/image999:latest")
    });
    assert_eq!(world.ls("images/registry.test/many").len(), 1001);
    let found =
        world.sh("find images -name manifest.json -prune -o -type d -name 'image[0-9]*' -print | wc -l", 30).ok();
    assert_eq!(found.trim(), "1000");
}

/// Whoever deletes what he lists, while he lists it, misses nothing of the rest and gets nothing of it twice: where the
/// kernel asks for each part, and where it has kept the listing and drops it in the middle.
fn listed_while_deleted(world: &World) {
    let (layout, manifest) = images::artifact();
    layout.store(&world.containerd, &world.namespace, "registry.test/many/first:1", &manifest);
    let names = (0..600).map(|n| format!("registry.test/many/image{n}:latest"));
    world.containerd.rpc().create_images(&world.namespace, names, &manifest);
    let last = "images/registry.test/many/image599:latest";
    eventually("the last one is here", Duration::from_secs(3), || world.exists(last));
    let directory = world.mount().at_path(&world.path("images/registry.test/many"));
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    for round in ["asked for", "kept"] {
        let mut all: Vec<String> = std::fs::read_dir(&directory).unwrap().map(name).collect();
        if round == "asked for" {
            world.ctr(&["images", "tag", "registry.test/many/first:1", "registry.test/many/new:1"]);
            eventually("the new name is listed", Duration::from_secs(2), || {
                all = world.ls("images/registry.test/many");
                all.contains(&"new:1".to_owned())
            });
            world.ctr(&["images", "rm", "registry.test/many/new:1"]);
            eventually("the new name is gone", Duration::from_secs(2), || {
                !world.exists("images/registry.test/many/new:1")
            });
            all.retain(|name| name != "new:1");
        }
        let mut reader = std::fs::read_dir(&directory).unwrap();
        let mut seen: Vec<String> = reader.by_ref().take(50).map(name).collect();
        // What was read ahead for us goes as well.
        let at = all.iter().position(|name| *name == seen[49]).unwrap() + 150;
        let gone: Vec<String> = all[..at].iter().map(|name| format!("registry.test/many/{name}")).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).filter(|name| !name.contains("first")).collect();
        world.ctr(&[&["images", "rm"], &gone[..]].concat());
        eventually("they are gone", Duration::from_secs(3), || {
            !world.exists(&format!("images/{}", gone[gone.len() - 1]))
        });
        seen.extend(reader.map(name));
        let rest: Vec<&String> = all[at..].iter().collect();
        let listed: Vec<&String> = seen.iter().filter(|name| rest.contains(name)).collect();
        assert_eq!(listed, rest, "{round}");
    }
}

/// While much is asked the kernel keeps names and listings and asks for nothing; what changes is seen all the same: what
/// an event tells at once, what goes without one about a second later.
fn kept_until_told(world: &World) {
    let image = world.tiny();
    let dir = format!("images/{image}");
    let config = world.json(&format!("{dir}/manifest.json"))["config"]["digest"].as_str().unwrap().to_owned();
    let listings = || world.mount().requests()["readdir"];
    eventually("the kernel keeps the listing", Duration::from_secs(20), || {
        let before = listings();
        for n in 0..60 {
            assert!(world.ls(&dir).contains(&"config.json".to_owned()));
            // What is not there is asked for each time, and so the blobs are looked after.
            assert!(!world.exists(&format!("blobs/sha256/{n:064x}")));
            std::thread::sleep(Duration::from_millis(20));
        }
        listings() == before
    });
    let (users, id) = (format!("{dir}/containers"), world.new_id("user"));
    assert!(world.ls(&users).is_empty());
    world.ctr(&["containers", "create", image, &id]);
    eventually("the container is listed", Duration::from_millis(500), || world.ls(&users) == [id.as_str()]);
    world.ctr(&["containers", "rm", &id]);
    eventually("the container is gone", Duration::from_millis(500), || world.ls(&users).is_empty());
    world.ctr(&["content", "rm", &config]);
    let gone = || !world.exists(&format!("{dir}/config.json")) && !world.ls(&dir).contains(&"config.json".to_owned());
    eventually("the config is gone", Duration::from_secs(3), gone);
    let parent = dir.rsplit_once('/').unwrap().0;
    let count = world.ls(parent).len();
    world.ctr(&["images", "tag", image, &format!("{image}-again")]);
    eventually("the new name is listed", Duration::from_millis(500), || world.ls(parent).len() == count + 1);
    world.ctr(&["images", "rm", &format!("{image}-again")]);
    eventually("the new name is gone", Duration::from_millis(500), || world.ls(parent).len() == count);
}

crate::each_version!(values, documents, layers, one_truth, encoded_name, half_pulled, attestation, artifact);
crate::each_version!(
    names_from_hell,
    prefix_of_another,
    live,
    check_and_usage,
    manifests_from_hell,
    huge_manifest,
    a_thousand,
    listed_while_deleted
);
// What is collected for others would end what was promised.
crate::each_version_alone!(kept_until_told);
