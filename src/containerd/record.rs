//! What the mirror holds of containerd's objects: compact records with nothing in them that is large or rarely read.

use super::{Descriptor, Labels};
use std::sync::Arc;
use std::time::SystemTime;

/// An image's record: a name and what it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The whole reference.
    pub name: Arc<str>,
    /// What the name points to; its content need not be on this host, or anywhere.
    pub target: Descriptor,
    pub labels: Labels,
    pub created: Option<SystemTime>,
    pub updated: Option<SystemTime>,
}

/// A container's record without its spec and extensions, which are fetched when they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    pub id: Arc<str>,
    /// Name of the image it was made from; may be empty, and the image may be gone.
    pub image: Arc<str>,
    /// `io.containerd.runc.v2`, …
    pub runtime: Arc<str>,
    /// Type of the runtime's options; empty without options.
    pub runtime_options: Arc<str>,
    /// What kind of document the spec is.
    pub spec_type_url: Arc<str>,
    /// The length of the spec in bytes.
    pub spec_len: u64,
    pub snapshotter: Arc<str>,
    pub snapshot_key: Arc<str>,
    /// The sandbox it belongs to; empty where there is none.
    pub sandbox: Arc<str>,
    /// Names of its extensions.
    pub extensions: Arc<[Arc<str>]>,
    pub labels: Labels,
    pub created: Option<SystemTime>,
    pub updated: Option<SystemTime>,
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Unknown,
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

impl Status {
    /// The word for it, as `ctr tasks ls` has it, in lower case.
    pub fn word(self) -> &'static str {
        match self {
            Status::Unknown => "unknown",
            Status::Created => "created",
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Paused => "paused",
            Status::Pausing => "pausing",
        }
    }
}

/// A container's task, or a further process (exec) in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// Id of the container, or of the exec.
    pub id: Arc<str>,
    pub pid: u32,
    pub status: Status,
    pub stdin: Arc<str>,
    pub stdout: Arc<str>,
    pub stderr: Arc<str>,
    pub terminal: bool,
    pub exit_status: u32,
    pub exited_at: Option<SystemTime>,
}

/// What kind of snapshot it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    Unknown,
    View,
    Active,
    Committed,
}

impl SnapshotKind {
    /// The word for it, in lower case.
    pub fn word(self) -> &'static str {
        match self {
            SnapshotKind::Unknown => "unknown",
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        }
    }
}

/// A snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    pub name: Arc<str>,
    /// Empty for a snapshot that begins a chain.
    pub parent: Arc<str>,
    pub kind: SnapshotKind,
    pub labels: Labels,
    pub created: Option<SystemTime>,
    pub updated: Option<SystemTime>,
}

/// A lease's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    pub id: Arc<str>,
    pub labels: Labels,
    pub created: Option<SystemTime>,
}

/// Something that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseResource {
    pub id: String,
    /// `content`, `snapshots/<snapshotter>`, `ingests`, `images`.
    pub kind: String,
}

/// Content that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRecord {
    pub reference: Arc<str>,
    /// Bytes written so far.
    pub offset: u64,
    /// Bytes there will be; 0 if the writer did not say.
    pub total: u64,
    pub expected: Option<super::Digest>,
    pub started: Option<SystemTime>,
    pub updated: Option<SystemTime>,
}

/// A sandbox's record (containerd 1.7 and later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxRecord {
    pub id: Arc<str>,
    pub runtime: Arc<str>,
    pub runtime_options: Arc<str>,
    pub sandboxer: Arc<str>,
    pub spec_type_url: Arc<str>,
    pub spec: Arc<[u8]>,
    /// Name, type and bytes of each extension.
    pub extensions: Arc<[(Arc<str>, Document)]>,
    pub labels: Labels,
    pub created: Option<SystemTime>,
    pub updated: Option<SystemTime>,
}

/// A typed document (a protobuf `Any`): JSON for what containerd's Go types encode, else bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    pub type_url: String,
    pub value: Vec<u8>,
}

impl Document {
    /// The value as JSON: itself where it is JSON, else its type and bytes.
    pub fn json(&self) -> serde_json::Value {
        super::decode::document(&self.type_url, &self.value)
    }
}

/// What the content store says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    pub size: u64,
    pub labels: Labels,
    pub created: Option<SystemTime>,
    pub updated: Option<SystemTime>,
}

/// What a container's record has beyond [`ContainerRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerInfo {
    pub extensions: Vec<(String, Document)>,
    pub runtime_options: Option<Document>,
}

/// What a snapshot takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub size: u64,
    pub inodes: u64,
}

/// One mount of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mount {
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    pub target: String,
    pub options: Vec<String>,
}

/// A process of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// The exec that it is the first process of; empty for others.
    pub exec_id: String,
    /// What else the runtime tells of it.
    pub details: Option<Document>,
}
