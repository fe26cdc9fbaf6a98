//! Where the collections of a namespace come from: the list and the single question for each of them.

use super::mirror::{Link, SECOND, Source};
use super::namespace::Namespace;
use super::rpc::{stream, unary};
use super::{BlobInfo, Digest, convert};
use super::{ContainerRecord, ImageRecord, IngestRecord, LeaseRecord, SandboxRecord, SnapshotRecord, TaskRecord};
use crate::error::{Error, Kind, Result};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a list is believed while events tell of changes: an event can be lost on its way to containerd.
const MINUTE: Duration = Duration::from_secs(60);

/// Shims tell of their tasks by way of containerd, late or, when it was restarted meanwhile, not at all.
const TASKS: Duration = Duration::from_secs(5);

/// What `NotFound` means to somebody who asks whether a thing is there. A name that cannot be is not there either.
pub(super) fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => Ok(None),
        answer => answer.map(Some),
    }
}

/// The record that we have, if it says the same as a new one: a list that is asked for again then needs no more memory
/// than the first.
fn same<K: Ord, R: PartialEq + Clone>(known: &Option<Arc<BTreeMap<K, R>>>, key: &K, record: R) -> R {
    match known.as_ref().and_then(|known| known.get(key)) {
        Some(known) if *known == record => known.clone(),
        _ => record,
    }
}

/// A map made in one go, whose nodes are full: one that grew takes nearly twice the memory.
fn packed<K: Ord, R>(answer: Result<Vec<(K, R)>>) -> Result<BTreeMap<K, R>> {
    Ok(answer?.into_iter().collect())
}

/// A source that asks with a namespace: the parts that all of them share.
macro_rules! source {
    ($(#[$doc:meta])* $name:ident<$key:ty, $record:ty>, $trust:expr, list($ns:ident) $list:block, get($ns2:ident, $k:ident) $get:block) => {
        $(#[$doc])*
        pub(super) struct $name<'a>(pub &'a Namespace);

        impl Source<$key, $record> for $name<'_> {
            fn link(&self) -> Link {
                self.0.inner().link()
            }

            fn trust(&self) -> Duration {
                $trust
            }

            fn hear(&self) {
                self.0.inner().hear();
            }

            fn list(&self) -> Result<BTreeMap<$key, $record>> {
                let $ns = self.0;
                $list
            }

            fn get(&self, $k: &$key) -> Result<Option<$record>> {
                let $ns2 = self.0;
                $get
            }
        }
    };
}

source!(Images<Arc<str>, Arc<ImageRecord>>, MINUTE, list(ns) {
    match list_images(ns, Vec::new()) {
        Err(error) if error.kind() == Kind::TooLong => list_images_in_parts(ns),
        answer => answer,
    }
}, get(ns, name) {
    use api::images_client::ImagesClient;
    let query = api::GetImageRequest { name: name.to_string() };
    let object = format!("image {name}");
    let answer = found(unary!(ns.inner().rpc, ns.call("Images.Get", &object), ImagesClient.get, query))?;
    Ok(answer.and_then(|a| a.image).map(convert::image))
});

type ImageMap = BTreeMap<Arc<str>, Arc<ImageRecord>>;

fn list_images(ns: &Namespace, filters: Vec<String>) -> Result<ImageMap> {
    use api::images_client::ImagesClient;
    let object = format!("images of {}", ns.name());
    let query = api::ListImagesRequest { filters };
    let list = unary!(ns.inner().rpc, ns.call("Images.List", &object), ImagesClient.list, query)?;
    let known = ns.mirror().images.peek();
    let record = |image| {
        let image = convert::image(image);
        let image = same(&known, &image.name, image.clone());
        (image.name.clone(), image)
    };
    Ok(list.images.into_iter().map(record).collect())
}

/// The list is one message and fails above 16 MiB: then it is asked for by the first digits of the targets.
fn list_images_in_parts(ns: &Namespace) -> Result<ImageMap> {
    let mut all = list_images(ns, vec!["target.digest~=\"^sha(384|512):\"".into()])?;
    let mut prefixes: Vec<String> = (0..16).map(|d| format!("{d:x}")).collect();
    while let Some(prefix) = prefixes.pop() {
        match list_images(ns, vec![format!("target.digest~=\"^sha256:{prefix}\"")]) {
            Ok(part) => all.extend(part),
            Err(error) if error.kind() == Kind::TooLong && prefix.len() < 6 => {
                prefixes.extend((0..16).map(|d| format!("{prefix}{d:x}")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

source!(Containers<Arc<str>, Arc<ContainerRecord>>, MINUTE, list(ns) {
    use api::containers_client::ContainersClient;
    let object = format!("containers of {}", ns.name());
    let call = ns.call("Containers.ListStream", &object);
    let known = ns.mirror().containers.peek();
    let query = api::ListContainersRequest::default();
    let each = |all: &mut Vec<(_, _)>, answer: api::ListContainerMessage| {
        all.extend(answer.container.map(convert::container).map(|c| {
            let container = same(&known, &c.id, c.clone());
            (container.id.clone(), container)
        }));
    };
    packed(stream!(ns.inner().rpc, call, ContainersClient.list_stream, query, each))
}, get(ns, id) {
    Ok(found(ns.raw_container(id))?.map(convert::container))
});

impl Namespace {
    /// The whole record, spec and all.
    pub(super) fn raw_container(&self, id: &str) -> Result<api::Container> {
        use api::containers_client::ContainersClient;
        let object = format!("container {id}");
        let query = api::GetContainerRequest { id: id.to_string() };
        let call = self.call("Containers.Get", &object);
        let answer = unary!(self.inner().rpc, call, ContainersClient.get, query)?;
        answer.container.ok_or_else(|| Error::new(Kind::NotFound, format!("{object}: no answer")))
    }
}

source!(Tasks<Arc<str>, Arc<TaskRecord>>, TASKS, list(ns) {
    use api::tasks_client::TasksClient;
    let object = format!("tasks of {}", ns.name());
    let query = api::ListTasksRequest::default();
    let list = unary!(ns.inner().rpc, ns.call("Tasks.List", &object), TasksClient.list, query)?;
    Ok(list.tasks.into_iter().map(convert::task).map(|t| (t.id.clone(), t)).collect())
}, get(ns, id) {
    let Some(process) = ns.raw_process(id, "")? else { return Ok(None) };
    // An answer of a shim that is no more has no id.
    let id = id.to_string();
    Ok(Some(convert::task(containerd_client::types::v1::Process { id, ..process })))
});

/// The snapshots of one snapshotter.
pub(super) struct Snapshots<'a>(pub &'a Namespace, pub &'a str);

impl Source<Arc<str>, Arc<SnapshotRecord>> for Snapshots<'_> {
    fn link(&self) -> Link {
        self.0.inner().link()
    }

    fn trust(&self) -> Duration {
        // Views, labels and, on 1.6, what the garbage collection takes: of none of these an event tells.
        SECOND
    }

    fn list(&self) -> Result<BTreeMap<Arc<str>, Arc<SnapshotRecord>>> {
        use snap::snapshots_client::SnapshotsClient;
        let object = format!("{} snapshots of {}", self.1, self.0.name());
        let query = snap::ListSnapshotsRequest { snapshotter: self.1.into(), filters: Vec::new() };
        let call = self.0.call("Snapshots.List", &object);
        let known = self.0.mirror().snapshots(self.1).peek();
        let each = |all: &mut Vec<(_, _)>, answer: snap::ListSnapshotsResponse| {
            all.extend(answer.info.into_iter().map(convert::snapshot).map(|s| {
                let snapshot = same(&known, &s.name, s.clone());
                (snapshot.name.clone(), snapshot)
            }));
        };
        packed(stream!(self.0.inner().rpc, call, SnapshotsClient.list, query, each))
    }

    fn get(&self, key: &Arc<str>) -> Result<Option<Arc<SnapshotRecord>>> {
        use snap::snapshots_client::SnapshotsClient;
        let object = format!("{} snapshot {key}", self.1);
        let query = snap::StatSnapshotRequest { snapshotter: self.1.into(), key: key.to_string() };
        let call = self.0.call("Snapshots.Stat", &object);
        let answer = found(unary!(self.0.inner().rpc, call, SnapshotsClient.stat, query))?;
        Ok(answer.and_then(|a| a.info).map(convert::snapshot))
    }
}

source!(Leases<Arc<str>, Arc<LeaseRecord>>, SECOND, list(ns) {
    use api::leases_client::LeasesClient;
    let object = format!("leases of {}", ns.name());
    let list = unary!(ns.inner().rpc, ns.call("Leases.List", &object), LeasesClient.list, api::ListRequest::default())?;
    Ok(list.leases.into_iter().map(convert::lease).map(|l| (l.id.clone(), l)).collect())
}, get(ns, id) {
    Ok(Leases(ns).list()?.remove(id))
});

source!(Ingests<Arc<str>, Arc<IngestRecord>>, SECOND, list(ns) {
    use api::content_client::ContentClient;
    let object = format!("ingests of {}", ns.name());
    let call = ns.call("Content.ListStatuses", &object);
    let list = unary!(ns.inner().rpc, call, ContentClient.list_statuses, api::ListStatusesRequest::default())?;
    Ok(list.statuses.into_iter().map(convert::ingest).map(|i| (i.reference.clone(), i)).collect())
}, get(ns, reference) {
    Ok(Ingests(ns).list()?.remove(reference))
});

source!(Sandboxes<Arc<str>, Arc<SandboxRecord>>, SECOND, list(ns) {
    use api::sandbox::store_client::StoreClient;
    let object = format!("sandboxes of {}", ns.name());
    let call = ns.call("Sandboxes.List", &object);
    let list = unary!(ns.inner().rpc, call, StoreClient.list, api::sandbox::StoreListRequest::default())?;
    Ok(list.list.into_iter().map(convert::sandbox).map(|s| (s.id.clone(), s)).collect())
}, get(ns, id) {
    Ok(Sandboxes(ns).list()?.remove(id))
});

source!(Blobs<Digest, BlobInfo>, SECOND, list(ns) {
    use api::content_client::ContentClient;
    let object = format!("blobs of {}", ns.name());
    let call = ns.call("Content.List", &object);
    let known = ns.mirror().blobs.peek();
    let each = |all: &mut Vec<(_, _)>, answer: api::ListContentResponse| {
        all.extend(answer.info.into_iter().filter_map(convert::blob).map(|(digest, info)| {
            let info = same(&known, &digest, info);
            (digest, info)
        }));
    };
    packed(stream!(ns.inner().rpc, call, ContentClient.list, api::ListContentRequest::default(), each))
}, get(ns, digest) {
    use api::content_client::ContentClient;
    let object = format!("blob {digest}");
    let query = api::InfoRequest { digest: digest.to_string() };
    let answer = found(unary!(ns.inner().rpc, ns.call("Content.Info", &object), ContentClient.info, query))?;
    Ok(answer.and_then(|a| a.info).and_then(convert::blob).map(|(_, info)| info))
});
