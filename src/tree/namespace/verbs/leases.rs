//! `/namespaces/<namespace>/ctl`: `leases …`, and what a lease's own `ctl` does.

use super::labels;
use crate::containerd::{LEASE_EXPIRE, LeaseResource};
use crate::error::Result;
use crate::fail;
use crate::node::command::Command;
use crate::node::verb::{Verb, verb};
use crate::tree::namespace::Ns;
use std::time::{Duration, SystemTime};

pub const VERBS: &[Verb<Ns>] = &[
    verb(
        "leases create",
        "[--id ID] [--expires DURATION] [KEY=VALUE…]",
        "Makes a lease; without a duration it ends after a day, with 0 never.",
        create,
    ),
    verb(
        "leases delete",
        "[--sync] ID…",
        "Deletes leases; what nothing else holds is collected.",
        |ns: &Ns, command| {
            let delete: Delete = command.parse()?;
            if delete.ids.is_empty() {
                return fail!(Invalid, "an id must be given");
            }
            delete.ids.iter().try_for_each(|id| ns.namespace.delete_lease(id, delete.sync))
        },
    )
    .or(&["leases del", "leases rm", "leases remove"]),
];

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Create {
    #[arg(long)]
    id: Option<String>,
    #[arg(long, short = 'x', default_value = "24h")]
    expires: String,
    labels: Vec<String>,
}

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
pub struct Delete {
    #[arg(long)]
    pub sync: bool,
    pub ids: Vec<String>,
}

fn create(ns: &Ns, command: &Command) -> Result<()> {
    let create: Create = command.parse()?;
    let mut labels = labels(&create.labels)?;
    let expires = duration(&create.expires)?;
    if !expires.is_zero() {
        let end = SystemTime::now() + expires;
        labels.insert(LEASE_EXPIRE.to_owned(), crate::tree::text::rfc3339(end));
    }
    ns.namespace.create_lease(create.id.as_deref().unwrap_or_default(), &labels).map(drop)
}

/// A duration as Go writes it: `90s`, `1h30m`, `24h`, or `0`.
fn duration(text: &str) -> Result<Duration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let seconds = match &rest[digits..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return fail!(Invalid, "{text}: a duration is as 90s, 1h30m or 24h"),
        };
        let Ok(number) = rest[..digits].parse::<f64>() else {
            return fail!(Invalid, "{text}: a duration is as 90s, 1h30m or 24h");
        };
        total += number * seconds;
        rest = &rest[unit..];
    }
    match Duration::try_from_secs_f64(total) {
        // A hundred years: beyond it, the end of the lease is no time any more.
        Ok(duration) if !text.is_empty() && total < 3.2e9 => Ok(duration),
        _ => fail!(Invalid, "{text}: a duration is as 90s, 1h30m or 24h"),
    }
}

/// `add TYPE ID` and `remove TYPE ID`: what a lease holds, as `ctr`'s API calls it.
pub fn resource(command: &Command) -> Result<LeaseResource> {
    match command.texts().as_slice() {
        [kind, id] => Ok(LeaseResource { kind: (*kind).to_owned(), id: (*id).to_owned() }),
        _ => fail!(Invalid, "a type (content, snapshots/<snapshotter>, ingests, images) and an id must be given"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [("0", 0), ("90s", 90), ("1h30m", 5400), ("24h", 86400), ("1.5h", 5400)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "x", "1", "1h2", "h", "-1s", "1d", "99999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
