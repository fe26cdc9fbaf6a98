//! File systems that only we see: a snapshot that is an image of a disk, mounted read-only and nowhere (fsmount(2)).
//! No path leads there and no other process has it, so the kernel takes it away with its descriptor, whatever becomes
//! of us.

use crate::error::{Error, Result};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
/// Read-only, no devices, no set-uid, nothing is executed.
const ATTRIBUTES: u32 = 0x1 | 0x2 | 0x4 | 0x8;

const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// How often a free loop device is looked for: another process may be faster.
const TRIES: u32 = 16;

/// A mounted file system. It goes when this is dropped and nothing in it is open.
#[derive(Debug)]
pub struct Mounted(OwnedFd);

impl Mounted {
    /// Mounts `source` as containerd's mount says; with the option `loop` it is a file.
    pub fn new(kind: &str, source: &str, options: &[String]) -> Result<Mounted> {
        let mounted = mount(kind, source, options);
        mounted.map(Mounted).map_err(|e| Error::from(e).context(format!("{kind} file system {source}")))
    }

    /// A path to its root, for this process.
    pub fn path(&self) -> std::path::PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn mount(kind: &str, source: &str, options: &[String]) -> io::Result<OwnedFd> {
    // A loop device has to be held until it is mounted: then it goes with the mount.
    let device = if options.iter().any(|option| option == "loop") { Some(loop_device(source)?) } else { None };
    let source = device.as_ref().map_or(source, |(path, _)| path);
    let kind = CString::new(kind)?;
    // SAFETY: the name is a C string; what is returned is a descriptor of ours or an error.
    let fs = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1))? };
    configure(&fs, FSCONFIG_SET_STRING, "source", Some(source))?;
    configure(&fs, FSCONFIG_SET_FLAG, "ro", None)?;
    for option in options.iter().filter(|option| !matches!(option.as_str(), "ro" | "rw" | "loop")) {
        match option.split_once('=') {
            Some((key, value)) => configure(&fs, FSCONFIG_SET_STRING, key, Some(value))?,
            None => configure(&fs, FSCONFIG_SET_FLAG, option, None)?,
        }
    }
    configure(&fs, FSCONFIG_CMD_CREATE, "", None)?;
    // SAFETY: the descriptor is open; the rest are numbers.
    unsafe { owned(libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, ATTRIBUTES)) }
}

fn configure(fs: &OwnedFd, command: u32, key: &str, value: Option<&str>) -> io::Result<()> {
    let (key, value) = (CString::new(key)?, value.map(CString::new).transpose()?);
    let value = value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr());
    let key = if command == FSCONFIG_CMD_CREATE { std::ptr::null() } else { key.as_ptr() };
    // SAFETY: both are C strings that live through the call, or null where the command has none.
    match unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key, value, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// `fd` is what a call returned that gives a new descriptor, or fails with -1.
unsafe fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(fd) {
        // SAFETY: nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel's `struct loop_config`, of which only these are ever set.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    rest: [u64; 22],
    reserved: [u64; 8],
}

// Its size is in the kernel's interface: fd and block size, struct loop_info64 (232 bytes), eight reserved words.
const _: () = assert!(size_of::<LoopConfig>() == 8 + 232 + 64);

/// A read-only loop device over a file, which goes when nobody has it open.
fn loop_device(path: &str) -> io::Result<(String, File)> {
    let file = File::open(path)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..TRIES {
        // SAFETY: the call takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let name = format!("/dev/loop{number}");
        let device = File::open(&name)?;
        let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
        let config = LoopConfig {
            fd,
            block_size: 0,
            info: [0; 5],
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            rest: [0; 22],
            reserved: [0; 8],
        };
        // SAFETY: the structure has the kernel's layout and outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) } == 0 {
            return Ok((name, device));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}
