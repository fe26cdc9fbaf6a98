//! Waiting for a containerd that is away, without a clock that ticks.
//!
//! Whoever makes a socket changes the directory that holds it, so that is what is watched: the connection is tried again
//! when something happens there, when somebody asks for what containerd would know, and, for sockets that come to life
//! without a sign, less and less often up to once a minute.

use std::ffi::CString;
use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// The pause after the first attempt, and after a sign: a socket is there before anybody listens on it.
const SOON: Duration = Duration::from_millis(50);

/// The longest pause.
const LONG: Duration = Duration::from_secs(60);

/// The least pause between attempts that somebody asked for.
const ASKED: Duration = Duration::from_millis(200);

/// How long to wait before the next attempt if nothing happens.
pub(super) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Patience {
        Patience(SOON)
    }
}

/// What may tell that containerd is coming back.
pub(super) struct Signs {
    directory: Option<AsyncFd<OwnedFd>>,
    handle: Handle,
    wake: Arc<Notify>,
}

enum Sign {
    Change,
    Asked,
}

impl Signs {
    /// Watches from now on.
    pub fn of(address: &Path, handle: &Handle, wake: &Arc<Notify>) -> Signs {
        let _entered = handle.enter();
        // SAFETY: an owned descriptor is the same one as long as it lives.
        let directory = watch(address).and_then(|fd| unsafe { AsyncFd::register(fd) }.ok());
        Signs { directory, handle: handle.clone(), wake: wake.clone() }
    }

    /// Waits until another attempt is worth it.
    pub fn wait(&self, patience: &mut Patience) {
        let pause = patience.0;
        let sign = self.handle.block_on(async { tokio::time::timeout(pause, self.sign()).await });
        match sign {
            Ok(Sign::Change) => {
                std::thread::sleep(SOON / 2);
                patience.0 = SOON;
            }
            Ok(Sign::Asked) => std::thread::sleep(ASKED),
            Err(_) => patience.0 = (pause * 2).min(LONG),
        }
    }

    async fn sign(&self) -> Sign {
        let changed = async {
            match &self.directory {
                // An error of the watch is no sign.
                Some(directory) => match directory.readable().await {
                    Ok(_) => (),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let (mut changed, mut asked) = (pin!(changed), pin!(self.wake.notified()));
        poll_fn(|context| match changed.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Sign::Change),
            Poll::Pending => asked.as_mut().poll(context).map(|()| Sign::Asked),
        })
        .await
    }
}

/// An inotify descriptor on the directory of the socket, or the nearest one above it that is there.
fn watch(address: &Path) -> Option<OwnedFd> {
    // SAFETY: no preconditions; the descriptor is owned at once.
    let fd = match unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) } {
        -1 => return None,
        // SAFETY: a descriptor that was just made, and that nobody else has.
        fd => unsafe { OwnedFd::from_raw_fd(fd) },
    };
    let events = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;
    let added = address.ancestors().skip(1).any(|directory| {
        let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
        // SAFETY: the path ends in NUL and lives through the call.
        unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), events | libc::IN_ONLYDIR) != -1 }
    });
    added.then_some(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_socket_that_comes_is_seen_at_once_and_otherwise_patience_grows() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("below").join("socket");
        let wake = Arc::new(Notify::new());
        let signs = || Signs::of(&address, runtime.handle(), &wake);
        let mut patience = Patience::default();
        signs().wait(&mut patience);
        assert_eq!(patience.0, SOON * 2);
        patience.0 = LONG;
        let (watched, began) = (signs(), Instant::now());
        std::fs::create_dir(directory.path().join("below")).unwrap();
        watched.wait(&mut patience);
        let watched = signs();
        std::os::unix::net::UnixListener::bind(&address).unwrap();
        patience.0 = LONG;
        watched.wait(&mut patience);
        assert_eq!(patience.0, SOON);
        patience.0 = LONG;
        wake.notify_one();
        signs().wait(&mut patience);
        assert!(began.elapsed() < LONG / 2 && patience.0 == LONG);
    }
}
