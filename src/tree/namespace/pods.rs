//! `/namespaces/<namespace>/pods/<k8s namespace>/<pod>/<container>`: containers as Kubernetes calls them, from the
//! labels that CRI puts on them.

use super::{Ns, containers};
use crate::containerd::ContainerRecord;
use crate::error::Result;
use crate::node::row::{each, link};
use crate::node::{Dir, Each, Member, Object, Row};
use crate::tree::name;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The labels of CRI (kubernetes `pkg/kubelet/types/labels.go`).
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD: &str = "io.kubernetes.pod.name";
const CONTAINER: &str = "io.kubernetes.container.name";

pub static NAMESPACES: Dir<Ns> = Dir {
    doc: "Containers of Kubernetes, by the names that it gives them.",
    rows: &[each(
        "<k8s namespace>",
        "A namespace of Kubernetes.",
        &Each { list: namespaces, find: find_namespace, member: Member::Dir(&PODS) },
    )],
};

static PODS: Dir<Space> = Dir {
    doc: "The pods of one namespace of Kubernetes.",
    rows: &[each("<pod>", "A pod.", &Each { list: pods, find: find_pod, member: Member::Dir(&POD_DIR) })],
};

static POD_DIR: Dir<Pod> = Dir {
    doc: "The containers of one pod.",
    rows: &[each(
        "<container>",
        "Link to the newest container of this name.",
        &Each { list: members, find: find_member, member: Member::File(&MEMBER) },
    )],
};

static MEMBER: Row<InPod> = link("<container>", "The container.", |member| containers::link(&member.ns, &member.id));

/// A namespace of Kubernetes.
#[derive(Clone)]
struct Space {
    ns: Ns,
    name: String,
}

/// A pod.
#[derive(Clone)]
struct Pod {
    space: Space,
    name: String,
}

/// A container by its name in a pod.
#[derive(Clone)]
struct InPod {
    ns: Ns,
    name: String,
    id: Arc<str>,
}

impl Object for Space {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.name).into()
    }
}

impl Object for Pod {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.name).into()
    }
}

impl Object for InPod {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.name).into()
    }
}

/// Kubernetes' namespace, pod and container of a container, if it is one of Kubernetes'.
fn names(record: &ContainerRecord) -> Option<(&str, &str, &str)> {
    Some((record.labels.get(NAMESPACE)?, record.labels.get(POD)?, record.labels.get(CONTAINER)?))
}

/// Whether any container is one of Kubernetes'.
pub fn any(ns: &Ns) -> Result<bool> {
    Ok(ns.namespace.containers()?.values().any(|record| names(record).is_some()))
}

fn collect<T: Ord>(ns: &Ns, pick: impl Fn((&str, &str, &str)) -> Option<T>) -> Result<BTreeSet<T>> {
    let containers = ns.namespace.containers()?;
    Ok(containers.values().filter_map(|record| names(record)).filter_map(pick).collect())
}

fn namespaces(ns: &Ns) -> Result<Vec<Space>> {
    let names = collect(ns, |(space, _, _)| Some(space.to_owned()))?;
    Ok(names.into_iter().map(|name| Space { ns: ns.clone(), name }).collect())
}

fn find_namespace(ns: &Ns, component: &str) -> Result<Option<Space>> {
    Ok(namespaces(ns)?.into_iter().find(|space| space.component() == component))
}

fn pods(space: &Space) -> Result<Vec<Pod>> {
    let names = collect(&space.ns, |(of, pod, _)| (of == space.name).then(|| pod.to_owned()))?;
    Ok(names.into_iter().map(|name| Pod { space: space.clone(), name }).collect())
}

fn find_pod(space: &Space, component: &str) -> Result<Option<Pod>> {
    Ok(pods(space)?.into_iter().find(|pod| pod.component() == component))
}

fn members(pod: &Pod) -> Result<Vec<InPod>> {
    let containers = pod.space.ns.namespace.containers()?;
    // A container that was restarted is there twice for a while: its name means the newer one.
    let mut newest: BTreeMap<&str, &Arc<ContainerRecord>> = BTreeMap::new();
    for record in containers.values() {
        let Some((space, name, container)) = names(record) else { continue };
        if space != pod.space.name || name != pod.name {
            continue;
        }
        let known = newest.entry(container).or_insert(record);
        if known.created < record.created {
            *known = record;
        }
    }
    let member = |(name, record): (&str, &Arc<ContainerRecord>)| InPod {
        ns: pod.space.ns.clone(),
        name: name.to_owned(),
        id: Arc::clone(&record.id),
    };
    Ok(newest.into_iter().map(member).collect())
}

fn find_member(pod: &Pod, component: &str) -> Result<Option<InPod>> {
    Ok(members(pod)?.into_iter().find(|member| member.component() == component))
}
