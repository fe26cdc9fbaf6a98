//! The life of a ctrfs: checks that fail early, a mount that answers before the command returns, and an end that
//! leaves nothing behind.

use crate::attach::{self, Attached};
use crate::cli::{Arguments, Options};
use crate::containerd::{Client, Config, Probe, Views};
use crate::error::{Error, Kind, Result};
use crate::mount::{Mounted, Policy, Shared};
use crate::node::counters::Counters;
use crate::node::handle::Handles;
use crate::node::inode::Table;
use crate::node::journal::Journal;
use crate::node::parked::Parked;
use crate::node::pool::Pool;
use crate::{fail, invalidate, tree};
use fuser::{Session, SessionACL};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a peer has to show that it is a containerd before we mount anyway.
const PROBE: Duration = Duration::from_millis(50);

/// How long users of the mount have to leave after it was told to end.
const GRACE: Duration = Duration::from_secs(3);

/// How long a lease of ours lives that is not renewed: what is left of a ctrfs that was killed and never started again.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// Threads that may wait for containerd at once. Each is bounded by the timeout of its request.
const POOL: usize = 32;

/// Threads that read requests from the kernel. They never wait for anything but a push, and for that one at a time, so
/// there are two at least.
const READERS: usize = 2;

/// Does what the command line says, until the mount ends.
pub fn run(arguments: &Arguments) -> Result<()> {
    let options = Options::parse(&arguments.options)?;
    let socket = arguments.socket()?;
    check_socket(&socket)?;
    let Some(mountpoint) = &arguments.mountpoint else { return fail!(Invalid, "no mount point") };
    let mountpoint = attach::prepare(mountpoint)?;
    let ready = if arguments.foreground || arguments.debug { None } else { Some(background()?) };
    log(arguments.debug);
    serve(arguments, options, socket, mountpoint, ready)
}

/// A path that is no socket will never be one; a path that is missing may come.
fn check_socket(socket: &Path) -> Result<()> {
    match std::fs::metadata(socket) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            fail!(Invalid, "--address {}: not a socket", socket.display())
        }
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            fail!(Access, "--address {}: no permission; containerd's socket is root's", socket.display())
        }
        _ => Ok(()),
    }
}

fn log(debug: bool) {
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::WARN };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(terminal).with_writer(std::io::stderr);
    // A second subscriber is refused, and the first one serves as well.
    let _ = log.try_init();
}

/// Has glibc give back what is free, before any thread is.
fn bound_free_memory() {
    // Two arenas are enough for threads that mostly wait, and a third of the memory of glibc's eight per processor. A list
    // of ten thousand is a mapping of its own, which ends with it, and so does what is free behind the last block: left to
    // itself glibc raises both bounds after the first long list, to 32 and 64 MB.
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 2 << 20), (libc::M_TRIM_THRESHOLD, 1 << 20)]
    {
        // SAFETY: mallopt only sets a parameter.
        unsafe { libc::mallopt(parameter, value) };
    }
}

fn serve(
    arguments: &Arguments,
    options: Options,
    socket: PathBuf,
    mountpoint: PathBuf,
    ready: Option<Ready>,
) -> Result<()> {
    // Before any thread: all of them inherit the mask, and only the one that waits for signals gets them.
    let signals = Signals::block();
    bound_free_memory();
    let client = Client::new(Config {
        address: socket.clone(),
        timeout: arguments.timeout,
        connect_timeout: arguments.connect_timeout,
        cache_bytes: arguments.cache_size,
    })?;
    let away = match client.probe(PROBE) {
        Probe::Stranger(why) => {
            return fail!(Unsupported, "--address {}: no containerd answers there: {why}", socket.display());
        }
        Probe::Away(why) => Some(why),
        Probe::Containerd(_) | Probe::Silent => None,
    };
    let daemon = Arc::new(tree::status::Daemon {
        started: SystemTime::now(),
        mountpoint: mountpoint.clone(),
        root: arguments.base(),
        options: arguments.options.join(","),
        journal: Arc::new(Journal::default()),
        counters: Arc::new(Counters::default()),
        gauges: std::sync::OnceLock::new(),
    });
    let roots = roots(arguments, options, &client);
    let store = crate::run::store::Store::new(arguments.state());
    let engine = Arc::new(crate::run::Engine::new(store, Box::new(tree::rootfs::read_file)));
    let table = table(arguments, &client, &daemon, &roots, &engine)?.with_renames(options.allow_delete);
    let shared = Arc::new(Shared {
        table,
        listings: Default::default(),
        handles: Handles::default(),
        pool: Pool::new(POOL),
        parked: Parked::default(),
        journal: Arc::clone(&daemon.journal),
        counters: Arc::clone(&daemon.counters),
        policy: policy(arguments, options, daemon.started),
        modes: Default::default(),
        polled: Default::default(),
        writes: Default::default(),
        push: Default::default(),
        kernel: Default::default(),
    });
    gauge(&daemon, &shared);
    wake(&shared, &roots, &engine);
    if !options.read_only {
        engine.keep(&client)?;
    }
    let (attached, device) = attach::attach(&mountpoint, &socket, options.allow_other, options.read_only)?;
    let attached = Arc::new(attached);
    let started = start(&client, &shared, &attached, device, options.allow_other);
    let session = started.inspect_err(|_| attached.detach())?;
    signals.end(Arc::clone(&attached), Arc::clone(&roots));
    tell(&mountpoint, &socket, options, away);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    if let Some(ready) = ready {
        ready.tell();
    }
    let ended = joined(session);
    // A helper that died, a detach that was lazy: whatever is left of the mount goes with us.
    attached.detach();
    engine.jobs.end(GRACE);
    roots.end();
    ended.map_err(|e| Error::from(e).context("the connection to the kernel"))
}

/// Waits for the end of the session. A connection that the kernel gave up while requests were under way ended like any
/// other: the mount is gone, which is what was asked for.
fn joined(session: fuser::BackgroundSession) -> std::io::Result<()> {
    match session.join() {
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
        ended => ended,
    }
}

/// Has those who are parked look again when what they may wait for has changed.
fn wake(shared: &Shared, roots: &tree::rootfs::Roots, engine: &crate::run::Engine) {
    let waiters = shared.parked.clone();
    roots.on_built(move || waiters.wake());
    let waiters = shared.parked.clone();
    engine.store.watch.on_change(Box::new(move || waiters.wake()));
}

fn policy(arguments: &Arguments, options: Options, mounted: SystemTime) -> Policy {
    // SAFETY: these two have no preconditions and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Policy {
        uid,
        gid,
        mounted,
        guarded: options.allow_other && !options.allow_containers,
        read_only: options.read_only,
        allow_delete: options.allow_delete,
        timeout: arguments.timeout,
    }
}

/// The root filesystems. What a ctrfs left in containerd that was killed is given back, unless nothing may be changed.
fn roots(arguments: &Arguments, options: Options, client: &Client) -> Arc<tree::rootfs::Roots> {
    let views = (!options.read_only).then(|| Views::new(client.clone(), LEASE));
    if let Some(views) = &views {
        views.sweep_later();
    }
    Arc::new(tree::rootfs::Roots::new(&arguments.cache(), views, options.symlinks_inside))
}

/// What the mounting user should know, a line each.
fn tell(mountpoint: &Path, socket: &Path, options: Options, away: Option<String>) {
    let name = mountpoint.display();
    if let Some(why) = away {
        eprintln!("ctrfs: {}: {why}; {name} is mounted and fills once containerd is there", socket.display());
    }
    if !options.allow_other {
        eprintln!("ctrfs: {name} is visible to you only; -o allow_other lets other users in");
    }
}

/// The table of the tree. Where only a part is mounted, that part has to be there: containerd gets a while to come.
fn table(
    arguments: &Arguments,
    client: &Client,
    daemon: &Arc<tree::status::Daemon>,
    roots: &Arc<tree::rootfs::Roots>,
    engine: &Arc<crate::run::Engine>,
) -> Result<Table> {
    let give_up = Instant::now() + arguments.connect_timeout;
    loop {
        let root = tree::root(client.clone(), Arc::clone(daemon), Arc::clone(roots), Arc::clone(engine));
        let table = Table::new(root, &arguments.base());
        match &table {
            Err(e) if matches!(e.kind(), Kind::Away | Kind::Deadline | Kind::NotYet) && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(_) => return table.map_err(|e| e.context(format!("--root {}", arguments.base()))),
            Ok(_) => return table,
        }
    }
}

fn gauge(daemon: &tree::status::Daemon, shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    let read = move || {
        let Some(shared) = shared.upgrade() else { return tree::status::Gauges::default() };
        tree::status::Gauges {
            nodes: shared.table.len(),
            open: shared.handles.len(),
            parked: shared.parked.len(),
            queued: shared.pool.waiting(),
        }
    };
    // Set once, here.
    let _ = daemon.gauges.set(Box::new(read));
}

fn start(
    client: &Client,
    shared: &Arc<Shared>,
    attached: &Attached,
    device: std::os::fd::OwnedFd,
    allow_other: bool,
) -> Result<fuser::BackgroundSession> {
    let acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = fuser::Config::default();
    config.acl = acl;
    config.n_threads = Some(READERS);
    config.clone_fd = true;
    let notices = std::fs::File::from(device.try_clone()?);
    let session = Session::from_fd(Mounted(Arc::clone(shared)), device, acl, config)?;
    attached.read_ahead();
    let session = session.spawn()?;
    shared.push.enable(session.notifier());
    invalidate::spawn(client, shared, session.notifier(), notices, tree::tag::of)?;
    let waiters = shared.parked.clone();
    client.events(None).on_append(Box::new(move || waiters.wake()));
    Ok(session)
}

/// The signals that end a ctrfs.
struct Signals(libc::sigset_t);

impl Signals {
    fn block() -> Signals {
        // SAFETY: the set is initialized by sigemptyset before it is used; the calls only touch this thread's mask.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            Signals(set)
        }
    }

    /// Detaches the mount at the first signal. The session ends when its last user has left; whoever has not left
    /// after a while is left behind.
    fn end(self, attached: Arc<Attached>, roots: Arc<tree::rootfs::Roots>) {
        let wait = move || {
            let mut signal = 0;
            // SAFETY: both point to values that live through the call.
            unsafe { libc::sigwait(&self.0, &mut signal) };
            attached.detach();
            std::thread::sleep(GRACE);
            roots.end();
            std::process::exit(0);
        };
        if let Err(error) = std::thread::Builder::new().name("ctrfs-signals".into()).spawn(wait) {
            tracing::warn!(%error, "signals will not end this mount; umount does");
        }
    }
}

/// Tells the process that started us that the mount answers.
struct Ready(std::os::fd::OwnedFd);

impl Ready {
    fn tell(self) {
        use std::io::Write;
        let mut pipe = std::fs::File::from(self.0);
        if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
            use std::os::fd::AsRawFd;
            for standard in 0..3 {
                // SAFETY: dup2 on descriptors that are open; the terminal is given back this way.
                unsafe { libc::dup2(null.as_raw_fd(), standard) };
            }
        }
        // If the parent is gone, nobody needs to know.
        let _ = pipe.write_all(b"!");
    }
}

/// Goes to the background: the parent waits until the child says that the mount answers, or ends with its status.
/// Called before there is any other thread.
fn background() -> Result<Ready> {
    use std::os::fd::FromRawFd;
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, and both are owned below.
    let (read, write) = unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(Error::from(std::io::Error::last_os_error()).context("pipe"));
        }
        (std::fs::File::from_raw_fd(ends[0]), std::os::fd::OwnedFd::from_raw_fd(ends[1]))
    };
    // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
    match unsafe { libc::fork() } {
        -1 => Err(Error::from(std::io::Error::last_os_error()).context("fork")),
        0 => {
            drop(read);
            // SAFETY: no preconditions. A child of fork is no group leader, so setsid succeeds.
            unsafe { libc::setsid() };
            let _ = std::env::set_current_dir("/");
            Ok(Ready(write))
        }
        child => {
            drop(write);
            std::process::exit(outcome(read, child));
        }
    }
}

/// 0 once the child is ready; if it ends before that, its exit status, and it has said why.
fn outcome(mut pipe: std::fs::File, child: libc::pid_t) -> i32 {
    use std::io::Read;
    let mut byte = [0];
    if matches!(pipe.read(&mut byte), Ok(1)) {
        return 0;
    }
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    unsafe { libc::waitpid(child, &mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status).max(1) } else { 1 }
}
