//! Attaching to a mount point and leaving it: mount(2) and umount2(2) done here, because fuser 0.18's own unmounting
//! can take down a stranger's mount (`docs/architecture.md`).

use crate::error::{Error, Kind, Result};
use crate::fail;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The type of the mount, as /proc/mounts shows it.
const TYPE: &str = "fuse.ctrfs";

/// Kibibytes that the kernel reads ahead in a file: its default of 128 halves sequential reading where every request
/// costs a call.
const READ_AHEAD_KIB: u32 = 1024;

/// A mount that is ours.
pub struct Attached {
    path: PathBuf,
    /// Its id in mountinfo: the path alone may be somebody else's mount by the time we unmount.
    id: Option<u64>,
    /// Mounted by fusermount3, so it has to unmount, too.
    helper: bool,
}

/// One line of /proc/self/mountinfo.
struct Line {
    id: u64,
    device: String,
    path: PathBuf,
    kind: String,
}

fn mounts() -> Vec<Line> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(|line| parse(&String::from_utf8_lossy(line))).collect()
}

/// proc(5): `id parent major:minor root path options… - type source options`, with octal escapes in the path.
fn parse(line: &str) -> Option<Line> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    Some(Line {
        id: fields.first()?.parse().ok()?,
        device: (*fields.get(2)?).to_owned(),
        path: PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(fields.get(4)?))),
        kind: after.split(' ').next()?.to_owned(),
    })
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = text.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (bytes[at], octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// The mount at `path` that is on top.
fn top(path: &Path) -> Option<Line> {
    mounts().into_iter().rfind(|line| line.path == path)
}

/// Makes sure that `path` is an empty directory with nothing mounted on it. A dead ctrfs there is detached; anything
/// else is left alone and refused.
pub fn prepare(path: &Path) -> Result<PathBuf> {
    let name = path.display();
    let path = resolve(path)?;
    while let Some(line) = top(&path) {
        // The one question that the kernel never answers by itself, from what it has kept of a dead one.
        let is_dead = || nix::sys::statvfs::statvfs(&path) == Err(nix::errno::Errno::ENOTCONN);
        if line.kind != TYPE || !is_dead() {
            return fail!(Busy, "{name}: a file system ({}) is mounted there; unmount it first", line.kind);
        }
        detach(&path)
            .map_err(|e| Error::from(e).context(format!("{name}: the mount of a dead ctrfs is in the way")))?;
    }
    let metadata = std::fs::metadata(&path).map_err(|e| cannot(&name, e))?;
    if !metadata.is_dir() {
        return fail!(NotDirectory, "{name}: not a directory");
    }
    let mut entries = std::fs::read_dir(&path).map_err(|e| cannot(&name, e))?;
    if entries.next().is_some() {
        return fail!(NotEmpty, "{name}: not empty; mount on an empty directory, or what is in it is hidden");
    }
    Ok(path)
}

fn cannot(name: &impl std::fmt::Display, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::new(Kind::NotFound, format!("{name}: no such directory; mkdir it first")),
        _ => Error::from(e).context(name),
    }
}

/// The absolute path without links, found without touching what is mounted at its end: that may be dead.
fn resolve(path: &Path) -> Result<PathBuf> {
    let name = path.display();
    let absolute = std::path::absolute(path).map_err(|e| cannot(&name, e))?;
    match std::fs::canonicalize(&absolute) {
        Ok(path) => Ok(path),
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
            let (Some(parent), Some(last)) = (absolute.parent(), absolute.file_name()) else { return Ok(absolute) };
            Ok(std::fs::canonicalize(parent).map_err(|e| cannot(&name, e))?.join(last))
        }
        Err(e) => Err(cannot(&name, e)),
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::new(Kind::Invalid, "a path with a NUL in it"))
}

fn detach(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that lives through the call.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts on `path` (as [`prepare`] gave it) and gives the descriptor to serve. `source` is what /proc/mounts shows.
pub fn attach(path: &Path, source: &Path, allow_other: bool, read_only: bool) -> Result<(Attached, OwnedFd)> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|e| {
        let remedy = match e.kind() {
            io::ErrorKind::PermissionDenied => "who mounts must be allowed to open it",
            _ => "the kernel needs its fuse module: modprobe fuse",
        };
        Error::from(e).context(format!("/dev/fuse: {remedy}"))
    })?;
    let device = OwnedFd::from(device);
    // SAFETY: these two have no preconditions and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let other = if allow_other { ",allow_other" } else { "" };
    let data =
        format!("fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions{other}", device.as_raw_fd());
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOATIME | if read_only { libc::MS_RDONLY } else { 0 };
    let (target, source_name) = (c_string(path.as_os_str().as_bytes())?, c_string(source.as_os_str().as_bytes())?);
    let (kind, data) = (c_string(TYPE.as_bytes())?, c_string(data.as_bytes())?);
    // SAFETY: all four are NUL-terminated strings that live through the call.
    let mounted =
        unsafe { libc::mount(source_name.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if mounted == 0 {
        let line = top(path);
        return Ok((Attached { path: path.to_owned(), id: line.map(|line| line.id), helper: false }, device));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(Error::from(error).context(format!("{}: mount", path.display())));
    }
    let device = by_helper(path, source, allow_other, read_only)?;
    let id = top(path).map(|line| line.id);
    Ok((Attached { path: path.to_owned(), id, helper: true }, device))
}

/// Without the privilege to mount, fusermount3 does it and passes the descriptor back (fuse3's `_FUSE_COMMFD`).
fn by_helper(path: &Path, source: &Path, allow_other: bool, read_only: bool) -> Result<OwnedFd> {
    let refused = |why: String| {
        let remedy = "mounting needs root, or fusermount3 of the package fuse3";
        Error::new(Kind::Access, format!("{}: {why}; {remedy}", path.display()))
    };
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: F_SETFD on a descriptor that we own; the child has to inherit it.
    unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
    let mut options = format!("fsname={},subtype=ctrfs,nosuid,nodev,noatime,default_permissions", source.display());
    for (wanted, word) in [(allow_other, ",allow_other"), (read_only, ",ro")] {
        options.push_str(if wanted { word } else { "" });
    }
    let child = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(path)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .output()
        .map_err(|e| refused(format!("fusermount3: {e}")))?;
    drop(theirs);
    if !child.status.success() {
        return Err(refused(String::from_utf8_lossy(&child.stderr).trim().to_owned()));
    }
    receive(&ours).map_err(|e| refused(format!("fusermount3 gave no descriptor: {e}")))
}

/// Receives one descriptor (unix(7), SCM_RIGHTS).
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut control = [0u64; 8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: an all-zero msghdr is a valid empty one; its pointers are set to buffers that live through the calls.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        if libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(OwnedFd::from_raw_fd(std::ptr::read_unaligned(libc::CMSG_DATA(header).cast())))
    }
}

impl Attached {
    /// Lets the kernel read ahead further than its default. Needs root; without it, reading works as well.
    pub fn read_ahead(&self) {
        if let Some(line) = top(&self.path).filter(|line| Some(line.id) == self.id) {
            let _ = std::fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", line.device), READ_AHEAD_KIB.to_string());
        }
    }

    /// Detaches the mount, if it is still ours and on top. What is open in it stays open until it is closed.
    pub fn detach(&self) {
        if top(&self.path).map(|line| line.id) != self.id || self.id.is_none() {
            return;
        }
        if self.helper {
            let _ = Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(&self.path).status();
        } else if let Err(error) = detach(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot unmount");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = parse(r"36 35 0:98 / /mnt/a\040b\134c rw,noatime shared:1 - fuse.ctrfs ctrfs rw").unwrap();
        assert_eq!((line.id, line.device.as_str(), line.kind.as_str()), (36, "0:98", "fuse.ctrfs"));
        assert_eq!(line.path, Path::new(r"/mnt/a b\c"));
        assert!(parse("").is_none());
    }
}
