//! Leases: what is being made is held until what refers to it is there.

use super::change::{Patience, change};
use super::{Change, LeaseResource, Namespace};
use crate::error::Result;
use crate::wait;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::leases_client::LeasesClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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
            tracing::warn!(lease = self.id, %error, "a lease stays until it ends by itself");
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
        let labels = BTreeMap::from([(EXPIRE.to_owned(), end), (OURS.to_owned(), super::view::owner())]);
        self.create_lease(&id, &labels)?;
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
