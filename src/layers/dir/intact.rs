//! Whether the directory of a layer is still all there. containerd removes a snapshot's record first and its files
//! then, one by one, while whoever looks into it finds an ever smaller layer; no call tells of that. But a directory
//! out of which an entry was removed, and a file that lost a name, have a change time of that moment, and nothing else
//! changes a committed layer. So an answer from an inode that changed after the layer was opened is not believed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Seconds and nanoseconds since 1970.
type Seconds = (i64, i64);

/// What is watched of a layer that never changes as long as it is there.
pub(super) struct Intact {
    since: Seconds,
    broken: AtomicBool,
}

impl Intact {
    /// To be made before the directory is opened.
    pub(super) fn new() -> Intact {
        // The clock that file systems stamp with: it lags behind the precise one.
        Intact { since: clock(libc::CLOCK_REALTIME_COARSE), broken: AtomicBool::new(false) }
    }

    /// Takes note of an inode that an answer rests on, after the answer was found.
    pub(super) fn see(&self, meta: &Metadata) {
        let changed = (meta.ctime(), meta.ctime_nsec());
        // A change in the future was made before the clock was set back, and tells nothing.
        if changed >= self.since && changed <= clock(libc::CLOCK_REALTIME) {
            self.lost();
        }
    }

    /// Something that had been found is not there any more.
    pub(super) fn lost(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Whether everything that was answered until now came from a layer that was all there.
    pub(super) fn is_whole(&self) -> bool {
        !self.broken.load(Ordering::Acquire)
    }
}

fn clock(which: libc::clockid_t) -> Seconds {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the one structure, which is ours.
    unsafe { libc::clock_gettime(which, &raw mut now) };
    (now.tv_sec, now.tv_nsec)
}
