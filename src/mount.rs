//! FUSE in, nodes out: decode a request, call the node, reply. No policy but the one of FUSE itself.
//!
//! Every request is tried on the FUSE thread, where nothing may wait; what would wait runs again on the pool
//! (`wait.rs`), and what waits for the world is parked. A request that is on the pool dies with its caller too: its
//! reply sits in a slot that the one takes who is first.

use crate::error::{Error, Kind, Result};
use crate::node::counters::{Counters, Op};
use crate::node::handle::{Handle, Handles, Opened};
use crate::node::inode::{Found, Table};
use crate::node::journal::{Caller, Journal};
use crate::node::listings::Listings;
use crate::node::parked::{Parked, Waiter};
use crate::node::pool::Pool;
use crate::node::{Attr, Lifetime, TOLD};
use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyXattr, Request,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

mod change;
mod command;
mod hands;
mod listing;
mod pending;
mod push;
mod reply;
mod shared;
pub mod through;
pub mod waiters;
use reply::Refuse;
use waiters::Reader;

/// How the mount was asked to be.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who mounted: owner of every file that has no owner of its own.
    pub uid: u32,
    pub gid: u32,
    /// When: the time of everything that has none of its own.
    pub mounted: SystemTime,
    /// Others are let in, so what is private is shown to the owner only.
    pub guarded: bool,
    /// Nothing can be changed.
    pub read_only: bool,
    /// `rmdir`, `rm` and `mv` delete and rename objects (DESIGN 4).
    pub allow_delete: bool,
    /// The longest that a request may take.
    pub timeout: Duration,
}

/// The mounted file system.
pub struct Mounted(pub Arc<Shared>);

/// What all requests share.
pub struct Shared {
    pub table: Table,
    pub listings: Listings,
    pub handles: Handles,
    pub pool: Pool,
    pub parked: Parked,
    pub journal: Arc<Journal>,
    pub counters: Arc<Counters>,
    pub policy: Policy,
    pub modes: through::Modes,
    pub push: push::Push,
    /// The open files that programs poll.
    pub polled: waiters::Polled,
    pub writes: command::Writes,
    pub kernel: Kernel,
}

/// What is on the other side.
#[derive(Default)]
pub struct Kernel {
    /// Who sends it notices; set when there is somebody.
    pub notices: std::sync::OnceLock<Notices>,
    /// It is too old to do without `opendir` (before 5.1): it is told each time what it would do by itself.
    opens_directories: AtomicBool,
}

/// Who sends the kernel notices: handlers may only ask for them.
pub struct Notices {
    /// Waits until it was told what changed so far, and after a command also of what nobody tells.
    pub settle: Box<dyn Fn(bool) + Send + Sync>,
    /// The listing of a directory is believed for less long than its attributes were: it shall ask for them again.
    pub outlived: Box<dyn Fn(u64) + Send + Sync>,
}

/// As long as anybody asks.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is asked, by whom, of what: for the journal.
#[derive(Clone)]
struct Ask {
    op: Op,
    name: &'static str,
    caller: Caller,
    ino: u64,
    /// The entry of the directory `ino` that is meant.
    entry: Option<Box<OsStr>>,
}

impl Mounted {
    fn ask(&self, request: &Request, op: Op, name: &'static str, ino: INodeNo) -> Ask {
        self.0.counters.count(op);
        Ask { op, name, caller: Caller { uid: request.uid(), pid: request.pid() }, ino: ino.0, entry: None }
    }
}

/// A panic in a handler is a bug; its caller gets EIO and the mount lives on.
fn caught<A>(work: impl FnOnce() -> Result<A>) -> Result<A> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(Kind::Io, "ctrfs has a bug here: its standard error says where")))
}

impl Shared {
    fn answer<R: Refuse, A>(&self, ask: &Ask, reply: R, result: Result<A>, answer: impl FnOnce(&Shared, R, A)) {
        match result {
            Ok(value) => answer(self, reply, value),
            Err(error) => {
                self.note(ask, &error);
                reply.refuse(error.errno());
            }
        }
    }

    /// Notes what a person may ask for later: not the plain answers that programs probe for.
    fn note(&self, ask: &Ask, error: &Error) {
        use Kind::{Again, Interrupted, NoAttribute, NotFound, Range};
        let plain = matches!(error.kind(), NotFound | NoAttribute | Interrupted | Again | Range)
            || matches!(ask.op, Op::getxattr | Op::listxattr);
        if !plain {
            let mut path = self.table.path(ask.ino);
            if let Some(entry) = &ask.entry {
                path = format!("{path}/{}", entry.to_string_lossy().replace('\n', "\\n"));
            }
            self.journal.note(ask.caller.clone(), ask.name, path.trim_start_matches('/').to_owned(), error);
        }
    }
}

fn ttl(life: Lifetime) -> Duration {
    match life {
        Lifetime::Never => Duration::ZERO,
        Lifetime::Second => Duration::from_secs(1),
        Lifetime::Told => TOLD,
        Lifetime::Ever => FOREVER,
    }
}

/// The part of a text that a reader asks for.
fn part(text: &[u8], offset: u64, size: usize) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[start..start.saturating_add(size).min(text.len())]
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_ATOMIC_O_TRUNC;
        // An older kernel that lacks one of them serves the tree as well, only slower.
        if let Err(missing) = config.add_capabilities(wanted) {
            let _ = config.add_capabilities(wanted.difference(missing));
        }
        let opens = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_err();
        self.0.kernel.opens_directories.store(opens, Ordering::Relaxed);
        let _ = config.set_max_background(64);
        // Files of one file system below us, and one above: an overlay mount can use a root filesystem of ours.
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok() {
            self.0.modes.enable();
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.0.parked.release();
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ask = Ask { entry: Some(name.into()), ..self.ask(request, Op::lookup, "lookup", parent) };
        let (name, caller) = (name.as_bytes().to_vec(), request.pid());
        let work =
            move |fs: &Shared| match fs.table.find_free(parent.0, &name, |ino| !fs.writes.may_use(ino, caller))? {
                Some(found) => Ok(found),
                None => crate::fail!(NotFound, "no such entry"),
            };
        self.serve(ask, reply, work, move |fs, reply: ReplyEntry, found: Found| {
            fs.table.remember(parent.0, &found);
            let (life, attr) = fs.told(found.ino, &found.attr);
            reply.entry_with_ttls(&life, &ttl(found.attr.name_life), &attr, Generation(0));
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.0.counters.count(Op::forget);
        if self.0.table.forget(ino.0, lookups) {
            self.0.listings.forget(ino.0);
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let ask = self.ask(request, Op::getattr, "stat", ino);
        let answer = move |fs: &Shared, reply: ReplyAttr, attr: Attr| {
            let (life, attr) = fs.told(ino.0, &attr);
            reply.attr(&life, &attr);
        };
        self.serve(ask, reply, move |fs| fs.table.attr(ino.0), answer);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let ask = self.ask(request, Op::readlink, "readlink", ino);
        self.serve(ask, reply, move |fs| fs.table.target(ino.0), |_, reply: ReplyData, target| reply.data(&target));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let ask = self.ask(request, Op::open, "open", ino);
        let caller = ask.caller.clone();
        let work = move |fs: &Shared| fs.open(&caller, ino.0, flags);
        self.serve(ask, reply, work, move |fs, reply: ReplyOpen, (handle, flags)| {
            let number = FileHandle(fs.handles.insert(handle));
            match fs.handles.get(number.0).as_deref() {
                Some(Handle::File(opened)) => fs.modes.answer(reply, ino.0, number, opened, flags),
                _ => reply.opened(number, flags),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        number: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let ask = self.ask(request, Op::read, "read", ino);
        let size = size as usize;
        let file = match self.0.handle(number) {
            Ok(file) => file,
            Err(error) => return reply.refuse(error.errno()),
        };
        match &*file {
            Handle::File(Opened::Text { bytes, .. } | Opened::Told(bytes, _)) => reply.data(part(bytes, offset, size)),
            Handle::Written(written) => reply.data(part(&written.text, offset, size)),
            // It became a text when it was opened.
            Handle::File(Opened::Outcome) => reply.refuse(libc::EIO),
            Handle::File(Opened::Content(content) | Opened::Changing(content)) => {
                let content = Arc::clone(content);
                let work = move |_: &Shared| content.read(offset, size);
                self.serve(ask, reply, work, |_, reply: ReplyData, bytes| reply.data(&bytes));
            }
            Handle::File(Opened::State(state)) => {
                let state = Arc::clone(state);
                let work = move |_: &Shared| state.read(offset, size);
                self.serve(ask, reply, work, |_, reply: ReplyData, bytes| reply.data(&bytes));
            }
            Handle::File(Opened::Log(stream)) => {
                let stream = Arc::clone(stream);
                let work = move |_: &Shared| stream.read(offset, size);
                self.serve(ask, reply, work, |_, reply: ReplyData, bytes| reply.data(&bytes));
            }
            Handle::File(Opened::Follow(_)) => {
                let mut reader = Reader { reply: Some(reply), file: Arc::clone(&file), offset, size };
                if reader.attempt() {
                    return;
                }
                if flags.0 & libc::O_NONBLOCK != 0 {
                    return Box::new(reader).give_up(Error::new(Kind::Again, "nothing yet"));
                }
                self.0.counters.parked.fetch_add(1, Ordering::Relaxed);
                self.0.parked.park(request.pid(), Box::new(reader));
            }
        }
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        number: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let ask = self.ask(request, Op::release, "close", ino);
        match self.0.handles.remove(number.0).as_deref() {
            Some(Handle::File(Opened::Told(_, Some(reader)))) => reader.closes(),
            Some(Handle::File(opened)) => self.0.modes.released(ino.0, opened),
            Some(Handle::Written(written)) => self.0.close_writer(ask, written),
            _ => {}
        }
        reply.ok();
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        number: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: fuser::WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let ask = self.ask(request, Op::write, "write", ino);
        match self.0.handle(number) {
            Ok(file) => self.0.write(ask, reply, &file, offset, bytes),
            Err(error) => reply.refuse(error.errno()),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.counters.count(Op::opendir);
        // It is not asked again, and does the same by itself from then on.
        match self.0.kernel.opens_directories.load(Ordering::Relaxed) {
            false => reply.refuse(libc::ENOSYS),
            true => reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        let ask = self.ask(request, Op::readdir, "readdir", ino);
        let work = move |fs: &Shared| fs.part(ino.0, offset);
        self.serve(ask, reply, work, move |fs, mut reply: ReplyDirectory, part| {
            fs.fill(ino.0, part, &mut reply);
            reply.ok();
        });
    }

    fn readdirplus(&self, request: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let ask = self.ask(request, Op::readdir, "readdir", ino);
        let work = move |fs: &Shared| fs.part(ino.0, offset);
        self.serve(ask, reply, work, move |fs, mut reply: ReplyDirectoryPlus, part| {
            fs.fill_plus(ino.0, part, &mut reply);
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.0.counters.count(Op::statfs);
        // From memory, always: `df` must never wait for containerd.
        reply.statfs(0, 0, 0, self.0.table.len() as u64, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ask = self.ask(request, Op::getxattr, "getxattr", ino);
        let name = name.as_bytes().to_vec();
        if name.starts_with(b"system.") {
            return reply.refuse(libc::EOPNOTSUPP);
        }
        let work = move |fs: &Shared| {
            let node = fs.table.node(ino.0)?;
            match node.place.xattr(node.seat, &name)? {
                Some(value) => Ok(value),
                // coreutils stop asking after EOPNOTSUPP; ENODATA makes `ls -l` three times slower (DESIGN 3).
                None if name.starts_with(b"security.") => crate::fail!(Unsupported, "no security attributes here"),
                None => crate::fail!(NoAttribute, "no such attribute"),
            }
        };
        self.serve(ask, reply, work, move |_, reply, value| reply::xattr(reply, size, &value));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let ask = self.ask(request, Op::listxattr, "listxattr", ino);
        let work = move |fs: &Shared| {
            let node = fs.table.node(ino.0)?;
            let attributes = node.place.xattrs(node.seat)?;
            Ok(attributes.into_iter().flat_map(|(key, _)| key.into_bytes().into_iter().chain([0])).collect::<Vec<u8>>())
        };
        self.serve(ask, reply, work, move |_, reply, names| reply::xattr(reply, size, &names));
    }

    fn poll(
        &self,
        request: &Request,
        _: INodeNo,
        number: FileHandle,
        notifier: PollNotifier,
        _: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        self.0.counters.count(Op::poll);
        self.0.poll(request.pid(), number, notifier, flags, reply);
    }

    change::changes!();
}
