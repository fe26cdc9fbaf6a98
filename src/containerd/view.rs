//! Views of committed snapshots, made to learn where they are unpacked: the one change that reading may cause
//! (DESIGN 5.3).
//!
//! A view is made once for a chain and kept until the mount ends, under a lease of the namespace that is renewed while
//! ctrfs lives. Views are always removed by name and before their lease: a snapshot that the garbage collector takes
//! leaves an entry behind by which its parent can never be removed (containerd#11908).

use super::flight::Flights;
use super::lease::{EXPIRE, OURS};
use super::owner::Owner;
use super::rpc::lock;
use super::{Client, LeaseRecord, LeaseResource, Mount, Namespace};
use crate::error::{Kind, Result};
use crate::{fail, wait};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What keys of our views begin with.
const PREFIX: &str = "ctrfs-view-";

/// How long the end of the mount may wait for containerd.
const END: Duration = Duration::from_secs(5);

/// How often it is looked whether containerd is there, while it was not since the start.
const LOOK: Duration = Duration::from_millis(250);

/// All views of one mount.
pub struct Views {
    client: Client,
    /// How long a lease lives that is not renewed.
    expire: Duration,
    held: Mutex<Held>,
    /// Told when the mount ends.
    ending: Condvar,
    flights: Flights<String>,
    ended: OnceLock<()>,
}

#[derive(Default)]
struct Held {
    namespaces: HashMap<Arc<str>, Lease>,
    is_ending: bool,
    renewing: bool,
}

struct Lease {
    namespace: Namespace,
    id: String,
    /// By snapshotter and parent: the key of the view, and how it is mounted.
    views: HashMap<(String, String), (String, Vec<Mount>)>,
}

impl Views {
    /// The views of a mount, held by leases that end `expire` after the last renewal.
    pub fn new(client: Client, expire: Duration) -> Arc<Views> {
        let (held, ending) = (Mutex::default(), Condvar::new());
        Arc::new(Views { client, expire, held, ending, flights: Flights::default(), ended: OnceLock::new() })
    }

    /// How a view of the committed snapshot `parent` is mounted. Made if there is none yet; whoever asks for the same
    /// meanwhile waits for it.
    pub fn of(self: &Arc<Self>, ns: &Namespace, snapshotter: &str, parent: &str) -> Result<Vec<Mount>> {
        let key = (snapshotter.to_owned(), parent.to_owned());
        let ready = || {
            let held = lock(&self.held);
            Some(held.namespaces.get(ns.name())?.views.get(&key)?.1.clone())
        };
        let flight = format!("{}\n{snapshotter}\n{parent}", ns.name());
        self.flights.run(&flight, ready, || self.make(ns, key.clone()))
    }

    fn make(self: &Arc<Self>, ns: &Namespace, (snapshotter, parent): (String, String)) -> Result<Vec<Mount>> {
        let ready = || lock(&self.held).namespaces.get(ns.name()).map(|lease| lease.id.clone());
        let lease = self.flights.run(&ns.name().to_string(), ready, || self.lease(ns))?;
        let key = format!("{PREFIX}{}", unique());
        let mounts = ns.under(&lease).view_snapshot(&snapshotter, &key, &parent, &BTreeMap::new())?;
        let kept = {
            let mut held = lock(&self.held);
            let is_ending = held.is_ending;
            let lease = held.namespaces.get_mut(ns.name()).filter(|_| !is_ending);
            let kept =
                lease.map(|lease| lease.views.insert((snapshotter.clone(), parent), (key.clone(), mounts.clone())));
            kept.is_some()
        };
        if !kept {
            ns.remove_snapshot(&snapshotter, &key)?;
            return fail!(Cancelled, "ctrfs is ending");
        }
        self.renew_from_now_on();
        Ok(mounts)
    }

    fn lease(&self, ns: &Namespace) -> Result<String> {
        let id = ns.create_lease(&format!("ctrfs-{}", unique()), &self.labels())?;
        let mut held = lock(&self.held);
        let lease = Lease { namespace: ns.clone(), id: id.clone(), views: HashMap::new() };
        held.namespaces.insert(Arc::clone(ns.name()), lease);
        Ok(id)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let end = jiff::Timestamp::try_from(SystemTime::now() + self.expire).map(|time| time.to_string());
        BTreeMap::from([(EXPIRE.to_owned(), end.unwrap_or_default()), (OURS.to_owned(), Owner::of_this().to_string())])
    }

    /// Starts the thread that renews leases, if it does not run.
    fn renew_from_now_on(self: &Arc<Self>) {
        if !std::mem::replace(&mut lock(&self.held).renewing, true) {
            let views = Arc::clone(self);
            let renew = move || {
                while views.pause(views.expire / 2) {
                    views.renew()
                }
            };
            if let Err(error) = std::thread::Builder::new().name("ctrfs-leases".into()).spawn(renew) {
                tracing::warn!(%error, "leases of views end after {:?}", self.expire);
            }
        }
    }

    /// Waits; whether the mount goes on after that.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut held = lock(&self.held);
        while !held.is_ending {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            held = self.ending.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Puts each lease's views under a new one: containerd cannot change the end of a lease.
    fn renew(&self) {
        let all: Vec<(Namespace, String, Vec<LeaseResource>)> = {
            let held = lock(&self.held);
            held.namespaces
                .values()
                .map(|lease| (lease.namespace.clone(), lease.id.clone(), lease.resources()))
                .collect()
        };
        for (namespace, old, resources) in all {
            let renewed = (|| {
                let id = namespace.create_lease(&format!("ctrfs-{}", unique()), &self.labels())?;
                for resource in &resources {
                    namespace.add_to_lease(&id, resource)?;
                }
                // A view that was made meanwhile is under the old one; that stays for this time.
                let mut held = lock(&self.held);
                let Some(lease) = held.namespaces.get_mut(namespace.name()) else { return Ok(()) };
                lease.id = id;
                let all_moved = lease.views.len() == resources.len();
                drop(held);
                if all_moved { namespace.delete_lease(&old, false) } else { Ok(()) }
            })();
            if let Err(error) = renewed {
                tracing::warn!(lease = old, %error, "not renewed");
            }
        }
    }

    /// Removes all views, then their leases. Whoever asks while it is done waits for it.
    pub fn end(&self) {
        self.ended.get_or_init(|| {
            let all = {
                let mut held = lock(&self.held);
                held.is_ending = true;
                std::mem::take(&mut held.namespaces)
            };
            self.ending.notify_all();
            for lease in all.into_values() {
                let resources = lease.resources();
                if let Err(error) =
                    wait::until(Instant::now() + END, || give_back(&lease.namespace, &lease.id, &resources))
                {
                    tracing::warn!(lease = lease.id, %error, "a view stays until the next ctrfs starts");
                }
            }
        });
    }

    /// Gives back what a ctrfs left that was killed, as soon as containerd is there.
    pub fn sweep_later(self: &Arc<Self>) {
        let views = Arc::clone(self);
        let sweep = move || {
            while views.client.state().epoch == 0 {
                if !views.pause(LOOK) {
                    return;
                }
            }
            if let Err(error) = views.sweep() {
                tracing::debug!(%error, "what another ctrfs left stays");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("ctrfs-sweep".into()).spawn(sweep) {
            tracing::warn!(%error, "what another ctrfs left stays");
        }
    }

    fn sweep(&self) -> Result<()> {
        for name in self.client.namespaces()?.keys() {
            let Some(namespace) = self.client.namespace(name)? else { continue };
            for lease in namespace.leases()?.values().filter(|lease| is_left(lease)) {
                let resources = namespace.lease_resources(&lease.id)?;
                give_back(&namespace, &lease.id, &resources)?;
            }
        }
        Ok(())
    }
}

impl Lease {
    fn resources(&self) -> Vec<LeaseResource> {
        let views = self.views.iter();
        let resource = |((snapshotter, _), (key, _)): (&(String, String), &(String, Vec<Mount>))| LeaseResource {
            id: key.clone(),
            kind: format!("snapshots/{snapshotter}"),
        };
        views.map(resource).collect()
    }
}

/// Removes the views among `resources`, then the lease. What else a lease of ours holds is for the garbage collector.
fn give_back(namespace: &Namespace, lease: &str, resources: &[LeaseResource]) -> Result<()> {
    for resource in resources.iter().filter(|resource| resource.id.starts_with(PREFIX)) {
        if let Some(snapshotter) = resource.kind.strip_prefix("snapshots/") {
            gone(namespace.remove_snapshot(snapshotter, &resource.id))?;
        }
    }
    gone(namespace.delete_lease(lease, false))
}

fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// Something that no other process says.
fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{}-{nanos}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Whether a lease is one of ours whose ctrfs is gone, or that has ended and was not collected yet.
fn is_left(lease: &LeaseRecord) -> bool {
    let Some(owner) = lease.labels.get(OURS) else { return false };
    let end = lease.labels.get(EXPIRE).and_then(|end| end.parse::<jiff::Timestamp>().ok());
    let has_ended = end.is_some_and(|end| SystemTime::from(end) < SystemTime::now());
    has_ended || Owner::parse(owner).is_some_and(|owner| owner.is_gone())
}
