//! containerd's messages, as our records.

use super::record::*;
use super::{Descriptor, Digest, Labels, Platform};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types;
use prost_types::{Any, Timestamp};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A time, if it is one: absent and year 1 mean that it was never set.
pub(super) fn time(time: Option<Timestamp>) -> Option<SystemTime> {
    let time = time.filter(|t| t.seconds > -62_135_596_800)?;
    let nanos = Duration::from_nanos(u64::try_from(time.nanos).ok()?);
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = match time.seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(seconds),
        _ => SystemTime::UNIX_EPOCH.checked_sub(seconds),
    };
    whole?.checked_add(nanos)
}

/// A count that Go keeps in a signed number.
pub(super) fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// A digest; one that containerd should not have let in is the digest of nothing, so that the record is still shown.
fn digest(text: &str) -> Digest {
    Digest::parse(text).unwrap_or_else(|| Digest::of(b""))
}

pub(super) fn descriptor(d: types::Descriptor) -> Descriptor {
    Descriptor {
        media_type: d.media_type.into(),
        digest: digest(&d.digest),
        size: count(d.size),
        annotations: d.annotations.into_iter().collect(),
        platform: None,
        artifact_type: None,
    }
}

pub(super) fn platform(p: types::Platform) -> Platform {
    Platform { architecture: p.architecture, os: p.os, os_version: p.os_version, variant: p.variant }
}

pub(super) fn document(any: Any) -> Document {
    Document { type_url: any.type_url, value: any.value }
}

pub(super) fn image(i: api::Image) -> Arc<ImageRecord> {
    Arc::new(ImageRecord {
        name: i.name.into(),
        target: descriptor(i.target.unwrap_or_default()),
        labels: i.labels.into_iter().collect(),
        created: time(i.created_at),
        updated: time(i.updated_at),
    })
}

pub(super) fn container(c: api::Container) -> Arc<ContainerRecord> {
    let runtime = c.runtime.unwrap_or_default();
    let spec = c.spec.unwrap_or_default();
    let mut extensions: Vec<Arc<str>> = c.extensions.into_keys().map(Arc::from).collect();
    extensions.sort();
    Arc::new(ContainerRecord {
        id: c.id.into(),
        image: c.image.into(),
        runtime: runtime.name.into(),
        runtime_options: runtime.options.map(|o| o.type_url).unwrap_or_default().into(),
        spec_type_url: spec.type_url.into(),
        spec_len: spec.value.len() as u64,
        snapshotter: c.snapshotter.into(),
        snapshot_key: c.snapshot_key.into(),
        sandbox: c.sandbox.into(),
        extensions: extensions.into(),
        labels: c.labels.into_iter().collect(),
        created: time(c.created_at),
        updated: time(c.updated_at),
    })
}

pub(super) fn task(p: types::v1::Process) -> Arc<TaskRecord> {
    use types::v1::Status as S;
    let status = match S::try_from(p.status) {
        Ok(S::Created) => Status::Created,
        Ok(S::Running) => Status::Running,
        Ok(S::Stopped) => Status::Stopped,
        Ok(S::Paused) => Status::Paused,
        Ok(S::Pausing) => Status::Pausing,
        _ => Status::Unknown,
    };
    Arc::new(TaskRecord {
        id: p.id.into(),
        pid: p.pid,
        status,
        stdin: p.stdin.into(),
        stdout: p.stdout.into(),
        stderr: p.stderr.into(),
        terminal: p.terminal,
        exit_status: p.exit_status,
        exited_at: time(p.exited_at),
    })
}

pub(super) fn snapshot(s: snap::Info) -> Arc<SnapshotRecord> {
    let kind = match snap::Kind::try_from(s.kind) {
        Ok(snap::Kind::View) => SnapshotKind::View,
        Ok(snap::Kind::Active) => SnapshotKind::Active,
        Ok(snap::Kind::Committed) => SnapshotKind::Committed,
        _ => SnapshotKind::Unknown,
    };
    Arc::new(SnapshotRecord {
        name: s.name.into(),
        parent: s.parent.into(),
        kind,
        labels: s.labels.into_iter().collect(),
        created: time(s.created_at),
        updated: time(s.updated_at),
    })
}

pub(super) fn lease(l: api::Lease) -> Arc<LeaseRecord> {
    Arc::new(LeaseRecord { id: l.id.into(), labels: l.labels.into_iter().collect(), created: time(l.created_at) })
}

pub(super) fn ingest(s: api::Status) -> Arc<IngestRecord> {
    Arc::new(IngestRecord {
        reference: s.r#ref.into(),
        offset: count(s.offset),
        total: count(s.total),
        expected: Digest::parse(&s.expected),
        started: time(s.started_at),
        updated: time(s.updated_at),
    })
}

pub(super) fn blob(i: api::Info) -> Option<(Digest, BlobInfo)> {
    let labels: Labels = i.labels.into_iter().collect();
    let info = BlobInfo { size: count(i.size), labels, created: time(i.created_at), updated: time(i.updated_at) };
    Some((Digest::parse(&i.digest)?, info))
}

pub(super) fn sandbox(s: types::Sandbox) -> Arc<SandboxRecord> {
    let runtime = s.runtime.unwrap_or_default();
    let spec = s.spec.unwrap_or_default();
    let mut extensions: Vec<(Arc<str>, Document)> =
        s.extensions.into_iter().map(|(name, any)| (name.into(), document(any))).collect();
    extensions.sort_by(|a, b| a.0.cmp(&b.0));
    Arc::new(SandboxRecord {
        id: s.sandbox_id.into(),
        runtime: runtime.name.into(),
        runtime_options: runtime.options.map(|o| o.type_url).unwrap_or_default().into(),
        sandboxer: s.sandboxer.into(),
        spec_type_url: spec.type_url.into(),
        spec: spec.value.into(),
        extensions: extensions.into(),
        labels: s.labels.into_iter().collect(),
        created: time(s.created_at),
        updated: time(s.updated_at),
    })
}

pub(super) fn mount(m: types::Mount) -> Mount {
    Mount { kind: m.r#type, source: m.source, target: m.target, options: m.options }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_never_set_is_none() {
        let at = |seconds, nanos| time(Some(Timestamp { seconds, nanos }));
        assert_eq!(time(None), None);
        assert_eq!(at(-62_135_596_800, 0), None);
        assert_eq!(at(1, 5), Some(SystemTime::UNIX_EPOCH + Duration::new(1, 5)));
        assert_eq!(at(-1, 0), Some(SystemTime::UNIX_EPOCH - Duration::from_secs(1)));
        assert_eq!(at(1, -1), None);
    }
}
