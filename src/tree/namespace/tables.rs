//! `/namespaces/<namespace>/*.tsv`: what `ctr … ls` prints, as one file out of memory.
//!
//! A line is an object, the first line names the columns. Tabs and newlines in a value are percent-encoded, as in
//! names, so that a line always has all its fields.

use super::Ns;
use crate::containerd::Labels;
use crate::tree::text::{Text, field, rfc3339};
use std::fmt::Write;
use std::time::SystemTime;

fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Text {
    let mut text = columns.join("\t");
    text.push('\n');
    for row in rows {
        let fields: Vec<String> = row.iter().map(|value| field(value)).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", fields.join("\t"));
    }
    Ok(Some(text.into_bytes()))
}

fn time(time: Option<SystemTime>) -> String {
    time.map(rfc3339).unwrap_or_default()
}

fn labels(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub fn images(ns: &Ns) -> Text {
    let images = ns.namespace.images()?;
    let columns = ["REF", "TYPE", "DIGEST", "CREATED", "UPDATED", "LABELS"];
    table(
        &columns,
        images.values().map(|image| {
            vec![
                image.name.to_string(),
                image.target.media_type.to_string(),
                image.target.digest.to_string(),
                time(image.created),
                time(image.updated),
                labels(&image.labels),
            ]
        }),
    )
}

pub fn containers(ns: &Ns) -> Text {
    let containers = ns.namespace.containers()?;
    let columns = ["CONTAINER", "IMAGE", "RUNTIME", "SNAPSHOTTER", "SNAPSHOT", "CREATED", "UPDATED", "LABELS"];
    table(
        &columns,
        containers.values().map(|container| {
            vec![
                container.id.to_string(),
                container.image.to_string(),
                container.runtime.to_string(),
                container.snapshotter.to_string(),
                container.snapshot_key.to_string(),
                time(container.created),
                time(container.updated),
                labels(&container.labels),
            ]
        }),
    )
}

pub fn tasks(ns: &Ns) -> Text {
    let tasks = ns.namespace.tasks()?;
    table(
        &["TASK", "PID", "STATUS", "EXIT_STATUS", "EXITED_AT"],
        tasks.values().map(|task| {
            let exit = if task.exited_at.is_some() { task.exit_status.to_string() } else { String::new() };
            let status = task.status.word().to_uppercase();
            vec![task.id.to_string(), task.pid.to_string(), status, exit, time(task.exited_at)]
        }),
    )
}

pub fn snapshots(ns: &Ns) -> Text {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for snapshotter in ns.namespace.client().snapshotters()? {
        let snapshots = ns.namespace.snapshots(&snapshotter)?;
        rows.extend(snapshots.values().map(|snapshot| {
            vec![
                snapshotter.to_string(),
                snapshot.name.to_string(),
                snapshot.parent.to_string(),
                snapshot.kind.word().to_owned(),
                time(snapshot.created),
                time(snapshot.updated),
            ]
        }));
    }
    table(&["SNAPSHOTTER", "KEY", "PARENT", "KIND", "CREATED", "UPDATED"], rows.into_iter())
}
