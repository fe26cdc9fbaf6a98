//! Everything that a containerd knows, as text: equal before and after means that nothing was changed.

use super::Containerd;
use containerd_client::services::v1::Info;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The snapshotters that every version has here.
pub const SNAPSHOTTERS: [&str; 2] = ["native", "overlayfs"];

/// All namespaces with their labels, images, blobs, snapshots, containers, tasks, leases and what these hold.
pub fn snapshot_state(containerd: &Containerd) -> String {
    let rpc = containerd.rpc();
    let mut text = String::new();
    let mut namespaces = rpc.namespaces();
    namespaces.sort_by(|a, b| a.name.cmp(&b.name));
    for namespace in &namespaces {
        let name = &namespace.name;
        writeln!(text, "namespace {name} {:?}", sorted(&namespace.labels)).unwrap();
        let mut lines: Vec<String> = Vec::new();
        lines.extend(
            rpc.images(name)
                .iter()
                .map(|i| format!("image {:?} {:?} {:?} {:?}", i.name, i.target, i.updated_at, sorted(&i.labels))),
        );
        lines.extend(rpc.blobs(name).iter().map(blob));
        for snapshotter in SNAPSHOTTERS {
            lines.extend(rpc.snapshots(name, snapshotter).iter().map(|s| {
                let labels = sorted(&s.labels);
                format!("{snapshotter} {:?} {:?} {} {:?} {labels:?}", s.name, s.parent, s.kind, s.updated_at)
            }));
        }
        lines.extend(
            rpc.containers(name)
                .iter()
                .map(|c| format!("container {} {} {:?} {:?}", c.id, c.image, c.updated_at, sorted(&c.labels))),
        );
        lines.extend(rpc.tasks(name).iter().map(|t| format!("task {} {} {}", t.id, t.pid, t.status)));
        for lease in rpc.leases(name) {
            let mut held = rpc.lease_resources(name, &lease.id);
            held.sort_by(|a, b| (&a.r#type, &a.id).cmp(&(&b.r#type, &b.id)));
            lines.push(format!("lease {:?} {:?} {held:?}", lease.id, sorted(&lease.labels)));
        }
        lines.sort();
        lines.iter().for_each(|line| writeln!(text, "  {line}").unwrap());
    }
    text
}

/// Waits until the garbage collection that the last calls set off is over.
#[track_caller]
pub fn settle(containerd: &Containerd) {
    super::eventually("containerd is quiet", Duration::from_secs(10), || {
        let before = snapshot_state(containerd);
        std::thread::sleep(Duration::from_millis(500));
        before == snapshot_state(containerd)
    });
}

fn blob(info: &Info) -> String {
    format!("blob {} {} {:?} {:?}", info.digest, info.size, info.updated_at, sorted(&info.labels))
}

fn sorted(labels: &std::collections::HashMap<String, String>) -> BTreeMap<&String, &String> {
    labels.iter().collect()
}
