//! `images pull`: an image from a registry, as `ctr` of the same version leaves it.

use crate::common::holdings::{assert_same, collect, holdings};
use crate::common::registry::{Kind, Registry, USER};
use crate::common::tar::Tar;
use crate::common::{World, eventually, images, oci};
use serde_json::Value;
use std::time::Duration;

/// An image that no other test knows: containerd shares blobs between namespaces, and would not fetch it twice.
pub fn unique(world: &World, kib: usize) -> (oci::Layout, Value) {
    let mut layout = oci::Layout::new();
    let noise: Vec<u8> = (0..kib * 1024)
        .scan(world.namespace.len() as u64 | 1, |x, _| {
            *x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            Some((*x >> 33) as u8)
        })
        .collect();
    let own = Tar::new().dir("own/").file("own/name", &world.namespace).file("own/noise", noise).finish();
    let target = layout.image(&images::host(), &[oci::Layer::gzip(images::busybox_layer()), oci::Layer::gzip(own)]);
    (layout, target)
}

/// Images of all kinds come as they come with `ctr`: records, blobs, their labels, snapshots.
fn as_ctr_pulls(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let put = |(layout, target): (oci::Layout, Value), name: &str| registry.put(&layout, &target, name);
    let (attested, index, ..) = images::attested();
    let (mut many, here) = unique(world, 1);
    let other = many.image("linux/s390x", &[oci::Layer::gzip(vec![0; 2048])]);
    let related = many.image("linux/386", &[oci::Layer::gzip(vec![0; 4096])]);
    let all = many.index(&[other, related, here]);
    let images = [
        put(unique(world, 2000), "a/tiny:1"),
        put(images::zstd(), "a/zstd:1"),
        put((attested, index), "b/attested:latest"),
        put((many, all), "b/many:latest"),
    ];
    for image in &images {
        let all_flags = ["", "--label x=y", "--platform linux/s390x --no-unpack", "--all-platforms --no-unpack"];
        for flags in all_flags.into_iter().filter(|flags| !flags.contains("s390x") || image.contains("many")) {
            let (ours, theirs) = (World::new(world.version()), World::new(world.version()));
            ours.order("", &format!("images pull --plain-http {flags} {image}"));
            // `ctr` has no flag for it; its fetch is its pull without the unpacking.
            let of_ctr = match flags.strip_suffix("--no-unpack") {
                Some(flags) => format!("content fetch --plain-http {flags} {image}"),
                None => format!("images pull --plain-http {flags} {image}"),
            };
            theirs.ctr(&of_ctr.split_whitespace().collect::<Vec<_>>());
            // `ctr content fetch` fetches no metadata of other platforms, `pull` from 2.0 on does.
            if !flags.contains("--no-unpack")
                || world.version() < crate::common::Version::V2
                || !flags.contains("s390x")
            {
                assert_same(&ours, &theirs, &format!("{image} {flags}"));
            }
            if !flags.contains("--no-unpack") {
                ours.ctr(&["run", "--rm", image, &ours.new_id("of"), "true"]);
            }
        }
    }
}

/// An artifact comes without being unpacked.
fn an_artifact(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = images::artifact();
    let image = registry.put(&layout, &target, "chart:1");
    world.order("", &format!("images pull {image}"));
    assert_eq!(world.value(&format!("images/{image}/digest")), target["digest"].as_str().unwrap());
    assert_eq!(world.containerd.rpc().snapshots(&world.namespace, "overlayfs").len(), 0);
}

/// A closed registry wants to know who asks; one with TLS is believed if its authority is known.
fn closed_and_tls(world: &World) {
    let (layout, target) = unique(world, 1);
    let closed = Registry::start(Kind::Closed);
    let image = closed.put(&layout, &target, "tiny:1");
    assert_eq!(world.refused("", &format!("images pull {image}")), libc::EACCES);
    assert_eq!(world.refused("", &format!("images pull --user me:wrong {image}")), libc::EACCES);
    world.order("", &format!("images pull --user {USER} {image}"));
    let file = closed.dir.path().join("user");
    std::fs::write(&file, format!("{USER}\n")).unwrap();
    world.order("", &format!("images delete --sync {image}"));
    assert_ne!(world.refused("", &format!("images pull -ume:wrong {image}x")), 0);
    world.order("", &format!("images pull --user-file {} {image}", file.display()));
    // Nobody reads a password anywhere.
    let seen = world.sh("cat jobs/*/command error $M/.ctrfs/error_log", 10).out;
    assert!(seen.contains("images pull --user ***") && !seen.contains("s3cret") && !seen.contains("wrong"), "{seen}");
    let tls = Registry::start(Kind::Tls);
    let image = tls.put(&layout, &target, "tiny:1");
    // Of this machine nobody expects a certificate, unless there is a directory that says what to expect.
    let hosts = tls.dir.path().join("certs.d");
    let of_host = hosts.join(tls.host.replace(':', "_") + "_");
    std::fs::create_dir_all(&of_host).unwrap();
    let write = |more: &str| {
        std::fs::write(of_host.join("hosts.toml"), format!("server = \"https://{}\"\n{more}", tls.host)).unwrap()
    };
    let pull = format!("images pull --hosts-dir {} {image}", hosts.display());
    write("");
    let refused = world.command("", &pull).unwrap_err();
    assert!(refused.errno == libc::EHOSTDOWN && refused.said.contains("certificate"), "{refused:?}");
    for way in [format!("ca = {:?}\n", tls.authority()), "skip_verify = true\n".into()] {
        write(&way);
        world.order("", &pull);
        world.order("", &format!("images delete --sync {image}"));
    }
    world.order("", &format!("images pull --skip-verify {image}"));
}

/// A mirror is asked before the registry, and the registry if it does not know.
fn mirrors(world: &World) {
    let (mirror, registry) = (Registry::start(Kind::Plain), Registry::start(Kind::Plain));
    let (layout, target) = unique(world, 1);
    let (first, second) = (registry.reference("a/first:1"), registry.put(&layout, &target, "a/second:1"));
    mirror.put(&layout, &target, "a/first:1");
    let hosts = registry.dir.path().join("certs.d");
    let of_host = hosts.join(registry.host.replace(':', "_") + "_");
    std::fs::create_dir_all(&of_host).unwrap();
    let toml = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        registry.host, mirror.host
    );
    std::fs::write(of_host.join("hosts.toml"), toml).unwrap();
    for image in [&first, &second] {
        world.order("", &format!("images pull --hosts-dir {} {image}", hosts.display()));
        assert_eq!(world.value(&format!("images/{image}/digest")), target["digest"].as_str().unwrap());
    }
    assert!(mirror.log().contains(&format!("ns={}", registry.host)), "the mirror is told whom it stands for");
}

/// What cannot be had is refused with a word for it, and nothing stays behind.
fn refused(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = unique(world, 1);
    let image = registry.put(&layout, &target, "tiny:1");
    for (words, errno) in [
        (registry.reference("tiny:2"), libc::ENOENT),
        (registry.reference("other:1"), libc::ENOENT),
        ("busybox".into(), libc::EINVAL),
        (registry.reference("tiny"), libc::EINVAL),
        (format!("--platform a/b/c/d {image}"), libc::EINVAL),
        (format!("--platform linux/s390x {image}"), 0),
        (format!("--http-dump {image}"), libc::EOPNOTSUPP),
        (format!("--no-such-flag {image}"), libc::EINVAL),
        ("127.0.0.1:1/x:1".into(), libc::EHOSTDOWN),
        ("".into(), libc::EINVAL),
    ] {
        if errno != 0 {
            assert_eq!(world.refused("", &format!("images pull {words}")), errno, "{words}");
        }
    }
    // A registry that lies about a layer.
    let read = |descriptor: &Value| std::fs::read(registry.blob(oci::hex_of(descriptor))).unwrap();
    let manifest: Value = serde_json::from_slice(&read(&target)).unwrap();
    let layer = &manifest["layers"][1];
    let good = read(layer);
    let mut bad = good.clone();
    bad[300] ^= 1;
    std::fs::write(registry.blob(oci::hex_of(layer)), &bad).unwrap();
    assert_eq!(world.refused("", &format!("images pull {image}")), libc::EBADMSG);
    std::fs::write(registry.blob(oci::hex_of(layer)), &good).unwrap();
    collect(world);
    assert_eq!(holdings(world), Default::default());
    assert_eq!(world.ls("ingests"), [""; 0]);
    world.order("", &format!("images pull {image}"));
}

/// Killing whoever wrote it ends a pull; what was fetched is not fetched again.
fn killed(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = unique(world, 3000);
    registry.put(&layout, &target, "big:1");
    let image = format!("{}/big:1", registry.slow(400_000));
    let script = format!(
        "true\n echo 'images pull {image}' >ctl & pid=$!
         until grep -qs fetching jobs/1/progress; do sleep 0.05; done; sleep 1; kill -9 $pid; wait $pid; echo $?"
    );
    let took = world.sh(&script, 20);
    assert_eq!(took.out.trim(), "137", "{took:?}");
    eventually("the job has ended", Duration::from_secs(5), || world.value("jobs/1/state") == "cancelled");
    collect(world);
    assert_eq!(holdings(world).keys().filter(|k| !k.starts_with("blob")).count(), 0);
    world.order("", &format!("images pull {image}"));
    assert_eq!(world.ls("ingests"), [""; 0]);
    // The same, by the word for it.
    world.order("", &format!("images delete --sync {image}"));
    world.order("", &format!("images pull {image} &"));
    let job = "jobs/3";
    eventually("it runs", Duration::from_secs(5), || {
        world.exists(job) && world.value(&format!("{job}/state")) == "running"
    });
    world.order(job, "cancel");
    eventually("it has ended", Duration::from_secs(5), || world.value(&format!("{job}/state")) == "cancelled");
}

/// A blob is gone on with where the connection broke.
fn connections_that_break(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = unique(world, 3000);
    registry.put(&layout, &target, "big:1");
    let image = format!("{}/big:1", registry.breaking(900_000));
    world.order("", &format!("images pull --plain-http {image}"));
    assert!(world.read(&format!("images/{image}/check")).contains("status=complete"));
    assert_eq!(world.value(&format!("images/{image}/digest")), target["digest"].as_str().unwrap());
    let parts = registry.log().matches("http.response.status=206").count();
    assert!(parts > 3, "{parts} parts: {}", registry.log());
}

/// ctrfs killed in the middle of a pull leaves nothing that the garbage collection does not take, once its lease ends.
fn ctrfs_killed(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = unique(world, 3000);
    registry.put(&layout, &target, "big:1");
    let image = format!("{}/big:1", registry.slow(400_000));
    world.order("", &format!("images pull {image} &"));
    let fetching = || world.exists("jobs/1") && world.value("jobs/1/progress").contains("fetching");
    eventually("it fetches", Duration::from_secs(5), fetching);
    std::thread::sleep(Duration::from_millis(500));
    world.mount().kill();
    let rpc = world.containerd.rpc();
    let leases = rpc.leases(&world.namespace);
    assert_eq!(leases.len(), 1);
    assert!(leases[0].labels.contains_key("containerd.io/gc.expire"), "{leases:?}");
    world.ctr(&["leases", "rm", "--sync", &leases[0].id]);
    assert_eq!(holdings(world), Default::default());
}

crate::each_version!(as_ctr_pulls, an_artifact, closed_and_tls, mirrors, refused, killed, connections_that_break);
crate::each_version_alone!(ctrfs_killed);
