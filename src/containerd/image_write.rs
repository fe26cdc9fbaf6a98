//! Images, made, moved and deleted. An image is a name and what it points to; there is no renaming.

use super::change::{Patience, change};
use super::snapshot_write::wire_descriptor;
use super::{Change, Descriptor, LabelChanges, Namespace};
use crate::error::{Kind, Result};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::images_client::ImagesClient;
use prost_types::FieldMask;
use std::sync::Arc;

/// What an update of an image that exists replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// What it points to; its labels stay.
    Target,
    /// Its labels too.
    All,
}

impl Namespace {
    /// Makes an image; `Exists` if there is one of this name.
    pub fn create_image(&self, name: &str, target: &Descriptor, labels: &LabelChanges) -> Result<()> {
        let object = format!("image {name}");
        let query = api::CreateImageRequest { image: Some(wire(name, target, labels)), source_date_epoch: None };
        let call = self.call("Images.Create", &object);
        let made = change!(self, Patience::Usual, call, ImagesClient.create, query);
        self.image_changed(name);
        made.map(drop)
    }

    /// Lets an image that exists point elsewhere.
    pub fn update_image(&self, name: &str, target: &Descriptor, labels: &LabelChanges, replace: Replace) -> Result<()> {
        let object = format!("image {name}");
        let update_mask = match replace {
            Replace::Target => Some(FieldMask { paths: vec!["target".into()] }),
            Replace::All => None,
        };
        let image = Some(wire(name, target, labels));
        let query = api::UpdateImageRequest { image, update_mask, source_date_epoch: None };
        let call = self.call("Images.Update", &object);
        let done = change!(self, Patience::Usual, call, ImagesClient.update, query);
        self.image_changed(name);
        done.map(drop)
    }

    /// Makes an image or lets the one of this name point elsewhere.
    pub fn put_image(&self, name: &str, target: &Descriptor, labels: &LabelChanges, replace: Replace) -> Result<()> {
        loop {
            match self.create_image(name, target, labels) {
                Err(error) if error.kind() == Kind::Exists => {}
                other => return other,
            }
            match self.update_image(name, target, labels, replace) {
                // Somebody deleted it in between.
                Err(error) if error.kind() == Kind::NotFound => crate::wait::deadline().map(drop)?,
                other => return other,
            }
        }
    }

    /// Deletes an image; with `sync` what nothing else refers to is gone when this returns.
    pub fn delete_image(&self, name: &str, sync: bool) -> Result<()> {
        let object = format!("image {name}");
        let query = api::DeleteImageRequest { name: name.into(), sync, target: None };
        let call = self.call("Images.Delete", &object);
        let patience = if sync { Patience::Long } else { Patience::Usual };
        let done = change!(self, patience, call, ImagesClient.delete, query);
        self.image_changed(name);
        self.inner().expect_collection();
        done.map(drop)
    }

    fn image_changed(&self, name: &str) {
        self.client().touched(&Change::Image { namespace: Arc::clone(self.name()), name: name.into() });
    }
}

fn wire(name: &str, target: &Descriptor, labels: &LabelChanges) -> api::Image {
    api::Image {
        name: name.into(),
        labels: labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        target: Some(wire_descriptor(target)),
        ..Default::default()
    }
}
