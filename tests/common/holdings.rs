//! All that a namespace holds, to be compared with what another holds.

use super::{Version, World};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// In the words of containerd, without times.
pub fn holdings(world: &World) -> BTreeMap<String, String> {
    let rpc = world.containerd.rpc();
    let sorted = |labels: HashMap<String, String>| labels.into_iter().collect::<BTreeMap<_, _>>();
    let mut all = BTreeMap::new();
    for image in rpc.images(&world.namespace) {
        let target = image.target.unwrap();
        let (annotations, labels) = (sorted(target.annotations), sorted(image.labels));
        let said = format!("{} {} {} {annotations:?} {labels:?}", target.media_type, target.digest, target.size);
        all.insert(format!("image {}", image.name), said);
    }
    for blob in rpc.blobs(&world.namespace) {
        all.insert(format!("blob {}", blob.digest), format!("{} {:?}", blob.size, sorted(blob.labels)));
    }
    for snapshot in rpc.snapshots(&world.namespace, "overlayfs") {
        // Before 2.0 `ctr` does not tell the snapshotter what it unpacks; ctrfs always does.
        let mut labels = sorted(snapshot.labels);
        if world.version() < Version::V2 {
            labels.remove("containerd.io/snapshot.ref");
        }
        all.insert(format!("snapshot {}", snapshot.name), format!("{} {labels:?}", snapshot.parent));
    }
    for lease in rpc.leases(&world.namespace) {
        all.insert(format!("lease {}", lease.id), String::new());
    }
    all
}

/// Has the garbage of a containerd collected.
pub fn collect(world: &World) {
    world.ctr(&["leases", "create", "--id", "collect"]);
    world.ctr(&["leases", "rm", "--sync", "collect"]);
}

/// What two namespaces hold is the same, once the garbage is collected.
#[track_caller]
pub fn assert_same(ours: &World, theirs: &World, what: &str) {
    collect(ours);
    let (ours, theirs) = (holdings(ours), holdings(theirs));
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
    let shown = |key: &String| format!("{key}:\n  ours   {:?}\n  theirs {:?}", ours.get(key), theirs.get(key));
    let differ: Vec<_> = differ.map(shown).collect();
    assert!(differ.is_empty(), "{what}\n{}", differ.join("\n"));
    assert!(!ours.is_empty(), "{what}: there is nothing");
}
