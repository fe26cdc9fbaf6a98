//! `update`: what a task may use, changed while it runs, and in its spec for the next time.

use super::spec::edit;
use super::spec::flags::LimitArgs;
use crate::containerd::Namespace;
use crate::error::{Error, Kind, Result};
use crate::fail;
use clap::Parser;
use serde_json::{Value, json};

/// Limits under the names that `run` has for them.
#[derive(Debug, Clone, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Changes the limits of a container.
pub fn update(ns: &Namespace, id: &str, args: &UpdateArgs) -> Result<()> {
    args.limits.check()?;
    let given = args.limits.resources();
    if given.is_empty() {
        return fail!(Invalid, "update: say what to change, as in update --memory-limit 67108864 --cpus 1.5");
    }
    let mut changes = json!({});
    let mut spec = ns.container_spec(id)?.json();
    for (path, value) in given {
        edit::set(&mut changes, &path, value.clone());
        edit::set(&mut spec, &[&["linux", "resources"], &path[..]].concat(), value);
    }
    let bytes = |value: &Value| {
        serde_json::to_vec(value).map_err(|e| Error::caused(Kind::Io, "the limits cannot be written", e))
    };
    if ns.live_task(id)?.is_some() {
        ns.update_task(id, bytes(&changes)?)?;
    }
    ns.set_container_spec(id, bytes(&spec)?)
}
