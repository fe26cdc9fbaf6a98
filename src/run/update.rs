//! `update`: what a task may use, changed while it runs, and in its spec for the next time.

use super::spec::edit;
use crate::containerd::Namespace;
use crate::error::{Error, Kind, Result};
use crate::fail;
use clap::Parser;
use serde_json::{Value, json};

/// Limits under the names that `run` has for them.
#[derive(Debug, Clone, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct UpdateArgs {
    /// In bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory_limit: Option<i64>,
    #[arg(long)]
    pub cpus: Option<f64>,
    #[arg(long)]
    pub cpu_shares: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

impl UpdateArgs {
    /// As the `linux.resources` of a spec, with what was said and nothing else.
    fn resources(&self) -> Result<Vec<(Vec<&'static str>, Value)>> {
        if self.cpus.is_some() && (self.cpu_quota.is_some() || self.cpu_period.is_some()) {
            return fail!(Invalid, "--cpus and --cpu-quota or --cpu-period exclude each other");
        }
        let quota = self.cpus.map(|cpus| (cpus * 100_000.0) as i64).or(self.cpu_quota);
        let period = self.cpus.map(|_| 100_000).or(self.cpu_period);
        let given = [
            (vec!["memory", "limit"], self.memory_limit.map(|n| json!(n))),
            (vec!["cpu", "quota"], quota.map(|n| json!(n))),
            (vec!["cpu", "period"], period.map(|n| json!(n))),
            (vec!["cpu", "shares"], self.cpu_shares.map(|n| json!(n))),
            (vec!["cpu", "cpus"], self.cpuset_cpus.as_ref().map(|n| json!(n))),
            (vec!["cpu", "mems"], self.cpuset_mems.as_ref().map(|n| json!(n))),
            (vec!["pids", "limit"], self.pids_limit.map(|n| json!(n))),
        ];
        Ok(given.into_iter().filter_map(|(path, value)| Some((path, value?))).collect())
    }
}

/// Changes the limits of a container.
pub fn update(ns: &Namespace, id: &str, args: &UpdateArgs) -> Result<()> {
    let given = args.resources()?;
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
