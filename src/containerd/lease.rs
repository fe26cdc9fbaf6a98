//! Leases: what is being made is held until what refers to it is there.

use super::change::{Patience, change};
use super::rpc::lock;
use super::{Change, Client, LeaseResource, Namespace};
use crate::error::{Error, Kind, Result};
use crate::wait;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::leases_client::LeasesClient;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// The label that says when a lease ends by itself.
pub const EXPIRE: &str = "containerd.io/gc.expire";

/// The label of leases that ctrfs made, which tells whose they are.
pub const OURS: &str = "ctrfs";

/// How long giving a lease back may take.
const RELEASE: Duration = Duration::from_secs(10);

/// A lease for the time of a command. It goes when this is dropped; if ctrfs is killed before, it ends by itself.
pub struct LeaseGuard {
    held: Namespace,
    id: String,
}

impl LeaseGuard {
    /// The namespace, through a handle whose calls make things that the lease holds.
    pub fn namespace(&self) -> &Namespace {
        &self.held
    }

    /// The id of the lease.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        // Also after the command was cancelled, so not under its policy.
        let given_back = wait::until(Instant::now() + RELEASE, || self.held.delete_lease(&self.id, false));
        if let Err(error) = given_back {
            self.held.client().keep_unreturned(self.held.name(), &self.id, &error);
            tracing::warn!(lease = self.id, %error, "not given back for now; it ends by itself");
        }
    }
}

/// Leases of commands that have ended, which could not be given back: containerd was away. By namespace and id.
pub(super) type Unreturned = Mutex<Vec<(Arc<str>, String)>>;

impl Client {
    /// Gives back the leases that could not be given back before.
    pub fn return_leases(&self) {
        for (name, id) in std::mem::take(&mut *lock(&self.inner.leases)) {
            let given_back = match self.namespace(&name) {
                Ok(Some(namespace)) => namespace.delete_lease(&id, false),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = given_back {
                self.keep_unreturned(&name, &id, &error);
            }
        }
    }

    /// A lease that may be there still is given back later.
    fn keep_unreturned(&self, namespace: &Arc<str>, id: &str, error: &Error) {
        if matches!(error.kind(), Kind::Away | Kind::Deadline | Kind::Interrupted) {
            lock(&self.inner.leases).push((Arc::clone(namespace), id.to_owned()));
        }
    }
}

impl Namespace {
    /// A lease of our own that ends after `expire` if it is not given back before.
    pub fn lease(&self, expire: Duration) -> Result<LeaseGuard> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now();
        let nanos = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let id = format!("ctrfs-{}-{nanos}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let end = jiff::Timestamp::try_from(now + expire).map(|t| t.to_string()).unwrap_or_default();
        let labels =
            BTreeMap::from([(EXPIRE.to_owned(), end), (OURS.to_owned(), super::owner::Owner::of_this().to_string())]);
        // Where the answer was lost, it may have been made.
        let made = self.create_lease(&id, &labels);
        made.inspect_err(|error| self.client().keep_unreturned(self.name(), &id, error))?;
        Ok(LeaseGuard { held: self.under(&id), id })
    }

    /// Makes a lease; containerd makes an id where `id` is empty. The id.
    pub fn create_lease(&self, id: &str, labels: &BTreeMap<String, String>) -> Result<String> {
        let object = format!("lease {id}");
        let labels = labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let query = api::CreateRequest { id: id.into(), labels };
        let call = self.call("Leases.Create", &object);
        let made = change!(self, Patience::Usual, call, LeasesClient.create, query);
        let id = made?.lease.map(|lease| lease.id).unwrap_or_default();
        self.lease_changed(&id);
        Ok(id)
    }

    /// Deletes a lease; with `sync` what nothing else holds is gone when this returns.
    pub fn delete_lease(&self, id: &str, sync: bool) -> Result<()> {
        let object = format!("lease {id}");
        let query = api::DeleteRequest { id: id.into(), sync };
        let call = self.call("Leases.Delete", &object);
        let patience = if sync { Patience::Long } else { Patience::Usual };
        let gone = change!(self, patience, call, LeasesClient.delete, query);
        self.lease_changed(id);
        self.inner().expect_collection();
        gone.map(drop)
    }

    /// Lets a lease hold something, there or not.
    pub fn add_to_lease(&self, id: &str, resource: &LeaseResource) -> Result<()> {
        let object = format!("lease {id}");
        let query = api::AddResourceRequest { id: id.into(), resource: Some(wire(resource)) };
        let call = self.call("Leases.AddResource", &object);
        let added = change!(self, Patience::Usual, call, LeasesClient.add_resource, query);
        self.lease_changed(id);
        added.map(drop)
    }

    /// Lets a lease hold something no longer.
    pub fn remove_from_lease(&self, id: &str, resource: &LeaseResource) -> Result<()> {
        let object = format!("lease {id}");
        let query = api::DeleteResourceRequest { id: id.into(), resource: Some(wire(resource)) };
        let call = self.call("Leases.DeleteResource", &object);
        let removed = change!(self, Patience::Usual, call, LeasesClient.delete_resource, query);
        self.lease_changed(id);
        self.inner().expect_collection();
        removed.map(drop)
    }

    fn lease_changed(&self, id: &str) {
        self.client().touched(&Change::Lease { namespace: Arc::clone(self.name()), id: id.into() });
    }
}

fn wire(resource: &LeaseResource) -> api::Resource {
    api::Resource { id: resource.id.clone(), r#type: resource.kind.clone() }
}
