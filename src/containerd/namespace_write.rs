//! Namespaces, made and removed.

use super::change::{Patience, change};
use super::rpc::Call;
use super::{Change, Client, LabelChanges, Namespace};
use crate::error::Result;
use crate::fail;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use std::sync::Arc;

impl Client {
    /// Makes a namespace. The name is containerd's to judge.
    pub fn create_namespace(&self, name: &str, labels: &LabelChanges) -> Result<()> {
        // containerd 1.6 says that there is one already only where no event was due.
        if self.namespaces()?.contains_key(name) {
            return fail!(Exists, "namespace {name}: is there already");
        }
        let labels = labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let query = api::CreateNamespaceRequest { namespace: Some(api::Namespace { name: name.into(), labels }) };
        let object = format!("namespace {name}");
        // The header has to be there, or the event of it fails on 1.6: the namespace itself will do.
        let call = Call { method: "Namespaces.Create", namespace: name, object: &object, lease: "" };
        let made = self.inner.rpc.change(call, Patience::Usual, query, |channel, request| async move {
            NamespacesClient::new(channel).create(request).await
        });
        self.touched(&Change::Namespace { name: name.into() });
        made.map(drop)
    }
}

impl Namespace {
    /// Removes the namespace, which has to be empty.
    pub fn remove(&self) -> Result<()> {
        let object = format!("namespace {}", self.name());
        let query = api::DeleteNamespaceRequest { name: self.name().to_string() };
        let call = self.call("Namespaces.Delete", &object);
        let gone = change!(self, Patience::Usual, call, NamespacesClient.delete, query);
        self.client().touched(&Change::Namespace { name: Arc::clone(self.name()) });
        gone.map(drop)
    }
}
