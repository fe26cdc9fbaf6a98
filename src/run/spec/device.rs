//! Devices of the host that a container is given.

use crate::error::{Error, Result};
use crate::fail;
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Directories of /dev that hold no devices of the host.
const PASSED_OVER: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// Directories in directories, at most.
const DEPTH: u32 = 16;

/// A device, or all that a directory tree of them holds.
pub fn devices(path: &Path) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let meta = std::fs::metadata(path).map_err(|e| Error::from(e).context(format!("device {}", path.display())))?;
    if meta.is_dir() {
        walk(path, DEPTH, &mut all)?;
        return Ok(all);
    }
    match device(path)? {
        Some(device) => Ok(vec![device]),
        None => fail!(Invalid, "{} is no device", path.display()),
    }
}

fn walk(dir: &Path, depth: u32, all: &mut Vec<Value>) -> Result<()> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    let mut entries: Vec<_> = std::fs::read_dir(dir)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        if entry.file_type()?.is_dir() {
            if !PASSED_OVER.iter().any(|passed| *passed == name) {
                walk(&path, depth, all)?;
            }
        } else if name != "console"
            && let Ok(Some(device)) = device(&path)
            && device["type"] != "p"
        {
            all.push(device);
        }
    }
    Ok(())
}

/// As a spec has it; `None` for what is no device.
fn device(path: &Path) -> Result<Option<Value>> {
    let meta = std::fs::symlink_metadata(path)?;
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => "b",
        kind if kind.is_char_device() => "c",
        kind if kind.is_fifo() => "p",
        _ => return Ok(None),
    };
    let rdev = meta.rdev();
    Ok(Some(json!({
        "path": path.to_string_lossy(),
        "type": kind,
        "major": libc::major(rdev),
        "minor": libc::minor(rdev),
        "fileMode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
    })))
}

/// The rule that lets a container use it.
pub fn rule(device: &Value) -> Value {
    json!({
        "allow": true,
        "type": device["type"],
        "major": device["major"],
        "minor": device["minor"],
        "access": "rwm",
    })
}
