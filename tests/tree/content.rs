//! `content …`: blobs written, labelled and deleted by hand.

use crate::common::registry::{Kind, Registry};
use crate::common::{World, eventually, oci};
use std::io::Write;
use std::time::Duration;

fn blob(bytes: &[u8]) -> (String, String) {
    let digest = oci::digest(bytes);
    (digest.clone(), format!("blobs/{}", digest.replace(':', "/")))
}

/// A file becomes a blob with its labels; what it is not expected to be it does not become.
fn ingest(world: &World) {
    let file = world.containerd.dir.join(format!("{}-file", world.namespace));
    let bytes = format!("bytes of {}", world.namespace).repeat(100_000).into_bytes();
    std::fs::write(&file, &bytes).unwrap();
    let (digest, path) = blob(&bytes);
    let file = file.display();
    world.order("", &format!("content ingest --label containerd.io/gc.root=1 mine {file}"));
    assert_eq!(world.bytes(&path), bytes);
    assert_eq!(world.xattr(&path, "user.label.containerd.io/gc.root").unwrap(), "1");
    world.order("", &format!("content ingest --expected-digest {digest} --expected-size {} mine {file}", bytes.len()));
    world.order("", &format!("content label {digest} a=b"));
    assert_eq!(world.xattr(&path, "user.label.a").unwrap(), "b");
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(world.refused("", &format!("content ingest --expected-digest {other} x {file}")), libc::EBADMSG);
    assert_eq!(world.refused("", &format!("content ingest --expected-size 1 x {file}")), libc::EBADMSG);
    assert_eq!(world.refused("", "content ingest x /does/not/exist"), libc::ENOENT);
    assert_eq!(world.refused("", "content ingest --expected-digest x x /etc/passwd"), libc::EINVAL);
    assert_eq!(world.ls("ingests"), [""; 0]);
    world.order("", &format!("content delete {digest}"));
    eventually("it is gone", Duration::from_secs(3), || !world.exists(&path));
    assert_eq!(world.refused("", &format!("content delete {digest}")), libc::ENOENT);
    assert_eq!(world.refused("", "content delete nonsense"), libc::EINVAL);
    assert_eq!(world.refused("", &format!("content label {digest} a=b")), libc::ENOENT);
    assert_eq!(world.containerd.rpc().leases(&world.namespace).len(), 0);
}

/// What is written to `ingests/REF/data` becomes a blob with its last byte, which carries the errno.
fn from_a_pipe(world: &World) {
    let bytes = format!("more bytes of {}", world.namespace).repeat(50_000).into_bytes();
    let (digest, path) = blob(&bytes);
    let begin = |reference: &str, digest: &str, label: &str| {
        let size = bytes.len();
        world.order(
            "",
            &format!("content ingest {label} {reference} --expected-size {size} --expected-digest {digest}"),
        );
        eventually("it waits", Duration::from_secs(3), || world.exists(&format!("ingests/{reference}/data")));
    };
    let write = |reference: &str, bytes: &[u8]| {
        let data = world.mount().at_path(&world.path(&format!("ingests/{reference}/data")));
        std::fs::File::options().write(true).open(data).unwrap().write_all(bytes)
    };
    begin("good", &digest, "--label containerd.io/gc.root=1");
    assert_eq!(world.refused("", "content ingest good --expected-size 1"), libc::EBUSY);
    write("good", &bytes).unwrap();
    assert_eq!(world.bytes(&path), bytes);
    let other = format!("sha256:{}", "1".repeat(64));
    begin("wrong", &other, "");
    assert_eq!(write("wrong", &bytes).unwrap_err().raw_os_error(), Some(libc::EBADMSG));
    begin("short", &other, "");
    write("short", &bytes[..1000]).unwrap();
    eventually("it is dropped", Duration::from_secs(3), || !world.exists("ingests/short"));
    begin("dropped", &other, "");
    world.order("ingests/dropped", "abort");
    eventually("it is dropped", Duration::from_secs(3), || !world.exists("ingests/dropped"));
    assert_eq!(world.refused("", "content ingest sizeless"), libc::EINVAL);
    assert_eq!(world.refused("", "content abort dropped"), libc::ENOENT);
    eventually("no lease stays", Duration::from_secs(3), || world.containerd.rpc().leases(&world.namespace).is_empty());
}

/// The content of an image is fetched and not unpacked.
fn fetch(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = super::pull::unique(world, 1);
    let image = registry.put(&layout, &target, "a:1");
    world.order("", &format!("content fetch {image}"));
    let check = world.read(&format!("images/{image}/check"));
    assert!(check.contains("status=complete") && check.contains("unpacked=false"), "{check}");
}

crate::each_version!(ingest, from_a_pipe, fetch);
