//! The system calls that the standard library lacks, each in a function that cannot be misused.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The kernel's `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`: no answer is longer.
const MAX_XATTR: usize = 65536;
/// The kernel's `XATTR_NAME_MAX`.
const MAX_NAME: usize = 255;

/// A path that is shorter goes into one call (`PATH_MAX` with room to spare).
const CHUNK: usize = 4000;

/// Opens `path`, relative to `root` and never leading out of it, without following any link. An empty path is the root.
pub(super) fn open_beneath(root: &OwnedFd, path: &[u8], flags: i32) -> Result<OwnedFd> {
    let mut at = None;
    let mut rest = if path.is_empty() { &b"."[..] } else { path };
    while !rest.is_empty() {
        let cut = match rest.len() {
            0..=CHUNK => rest.len(),
            _ => rest[..CHUNK].iter().rposition(|&b| b == b'/').ok_or_else(too_long)?,
        };
        let (head, tail) = rest.split_at(cut);
        rest = tail.strip_prefix(b"/").unwrap_or(tail);
        let flags = if rest.is_empty() { flags } else { libc::O_PATH | libc::O_DIRECTORY };
        let from = at.as_ref().unwrap_or(root);
        let next = match openat2(from, head, flags) {
            // A kernel before 5.6, or a filter that does not know the call.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => open_slowly(from, head, flags)?,
            answer => answer?,
        };
        at = Some(next);
    }
    at.ok_or_else(too_long)
}

fn too_long() -> Error {
    Error::from_raw_os_error(libc::ENAMETOOLONG)
}

fn openat2(root: &OwnedFd, path: &[u8], flags: i32) -> Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: `open_how` is plain numbers, for which zero means nothing asked for.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the path is a C string and `how` has the size that is told; both outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The same, one name at a time.
fn open_slowly(root: &OwnedFd, path: &[u8], flags: i32) -> Result<OwnedFd> {
    let mut at = None;
    let mut parts = path.split(|&b| b == b'/').peekable();
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Error::from_raw_os_error(libc::EXDEV));
        }
        let flags = if parts.peek().is_some() { libc::O_PATH | libc::O_DIRECTORY } else { flags };
        let from: &OwnedFd = at.as_ref().unwrap_or(root);
        let name =
            Path::new("/proc/self/fd").join(from.as_raw_fd().to_string()).join(std::ffi::OsStr::from_bytes(part));
        at = Some(OwnedFd::from(OpenOptions::new().read(true).custom_flags(flags | libc::O_NOFOLLOW).open(name)?));
    }
    at.ok_or_else(|| Error::from_raw_os_error(libc::ENOENT))
}

/// The value of an xattr of the file itself, not of what it points to; `None` if it has none of that name.
pub(super) fn get_xattr(path: &Path, name: &[u8]) -> Result<Option<Vec<u8>>> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) {
        return Ok(None);
    }
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let mut value = vec![0; 256];
    loop {
        // SAFETY: both are C strings, and the buffer has the length that is told.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        match usize::try_from(length) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(_) => match Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ERANGE) && value.len() < MAX_XATTR => value.resize(MAX_XATTR, 0),
                e if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => return Ok(None),
                e => return Err(e),
            },
        }
    }
}

/// The names of the xattrs of the file itself.
pub(super) fn list_xattrs(path: &Path) -> Result<Vec<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut names = vec![0; 1024];
    loop {
        // SAFETY: the path is a C string, and the buffer has the length that is told.
        let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
        match usize::try_from(length) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names.split(|&b| b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect());
            }
            Err(_) => match Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ERANGE) && names.len() < MAX_XATTR => names.resize(MAX_XATTR, 0),
                e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
                e => return Err(e),
            },
        }
    }
}
