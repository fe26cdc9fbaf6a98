//! Writes: commands and streams, carried out while their writer waits.
//!
//! A write is carried out on a thread of its own, for it may take long. Its writer waits among the parked requests, so
//! that a signal to it cancels the command; the reply belongs to whoever comes first. The kernel lets one write at a
//! time into an inode, and the next one waits there beyond `kill -9`; therefore every file that is open for writing
//! has an inode of its own (`Table::find_free`), and an open that comes too late for that says ESTALE, upon which the
//! kernel looks the name up again (open(2) in `fs/namei.c`, LOOKUP_REVAL).

use super::hands::Hands;
use super::reply::Refuse;
use super::{Ask, Shared, caught};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::command::{Command, LONGEST};
use crate::node::handle::{Handle, Slot, Written};
use crate::node::parked::{self, Waiter};
use crate::node::verb::Control;
use crate::node::{Node, Sink, Writer};
use crate::wait::{self, Cancel};
use fuser::ReplyWrite;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The inodes that are open for writing, and the writes that are being carried out.
#[derive(Default)]
pub struct Writes {
    inodes: Mutex<Inodes>,
    hands: Hands,
}

#[derive(Default)]
struct Inodes {
    open: HashSet<u64>,
    /// When two wanted to write to the same inode at the same time; for a while after it, each inode that a lookup
    /// gives is promised to the one who looked, because the kernel looks up only once more.
    contested: Option<Instant>,
    promised: HashMap<u64, u32>,
}

/// How long promises are made after a contest.
const CONTEST: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writes {
    /// Whether this caller, who looks the name up, may write to this inode.
    pub fn may_use(&self, ino: u64, caller: u32) -> bool {
        let mut inodes = lock(&self.inodes);
        if inodes.open.contains(&ino) {
            return false;
        }
        if inodes.contested.is_none_or(|since| since.elapsed() > CONTEST) {
            inodes.promised.clear();
            return true;
        }
        *inodes.promised.entry(ino).or_insert(caller) == caller
    }

    fn take(&self, ino: u64) -> Result<()> {
        let mut inodes = lock(&self.inodes);
        if inodes.open.insert(ino) {
            return Ok(());
        }
        inodes.contested = Some(Instant::now());
        fail!(Stale, "somebody else writes to this inode: look the name up again")
    }
}

impl Written {
    /// What a file opened for writing is.
    fn new(text: Vec<u8>, writer: Writer) -> Written {
        let slot = match writer {
            Writer::Control(control) => Slot::Control(control),
            Writer::Sink(sink) => Slot::Sink(sink),
        };
        Written { text, slot: Mutex::new(slot) }
    }
}

/// What a write does, once its handle let it.
enum Work {
    Commands(Arc<dyn Control>),
    Stream(Box<dyn Sink>),
}

/// What came of a write: how many bytes were taken, and how the handle is left.
type Outcome = (Result<usize>, Slot);

impl Shared {
    /// Opens a file for writing. Only the owner of the mount and root get here.
    pub(super) fn open_writer(&self, ino: u64, node: &Node, reads: bool) -> Result<Handle> {
        let writer = node.place.writer(node.seat)?;
        let text = match (&writer, reads) {
            (Writer::Control(control), true) => control.help()?,
            _ => Vec::new(),
        };
        self.writes.take(ino)?;
        Ok(Handle::Written(Written::new(text, writer)))
    }

    /// The last close of a file that was open for writing.
    pub(super) fn close_writer(self: &Arc<Self>, ask: Ask, written: &Written) {
        lock(&self.writes.inodes).open.remove(&ask.ino);
        if let Slot::Sink(sink) = std::mem::replace(&mut *lock(&written.slot), Slot::Closed) {
            let shared = Arc::clone(self);
            match self.writes.hands.hire_to_end() {
                Ok(hand) => hand.carry_out(move || shared.settle_outcome(&ask, &caught(|| sink.finish()))),
                Err(error) => {
                    self.settle_outcome(&ask, &Err(error));
                    // What it had begun is put away, which may take a while.
                    self.pool.run(move || drop(sink));
                }
            }
        }
    }

    /// A write: answered at once if the handle refuses it, else carried out.
    pub(super) fn write(self: &Arc<Self>, ask: Ask, reply: ReplyWrite, file: &Arc<Handle>, offset: u64, bytes: &[u8]) {
        let Handle::Written(written) = &**file else { return reply.refuse(libc::EBADF) };
        if bytes.is_empty() {
            return reply.written(0);
        }
        // Before the handle is touched: a write that nobody can carry out leaves it as it was.
        let hand = match self.writes.hands.hire() {
            Ok(hand) => hand,
            Err(error) => {
                self.settle_outcome(&ask, &Err(error.clone()));
                return reply.refuse(error.errno());
            }
        };
        let work = match self.admit(&ask, written, bytes) {
            Ok(work) => work,
            Err(error) => return reply.refuse(error.errno()),
        };
        let (bytes, uid, caller) = (bytes.to_vec(), ask.caller.uid, ask.caller.pid);
        let cancel = Cancel::default();
        let pending = Arc::new(Pending { reply: Mutex::new(Some(reply)), cancel: cancel.clone() });
        let commands = matches!(work, Work::Commands(_));
        let behind = commands && in_background(&bytes);
        let (shared, file, answer) = (Arc::clone(self), Arc::clone(file), Answer(Arc::clone(&pending)));
        let taken = bytes.len();
        hand.carry_out(move || {
            let (result, slot) = wait::command(&cancel, || match work {
                Work::Commands(control) => run(&*control, &bytes, uid).after(control),
                Work::Stream(sink) => stream(sink, offset, &bytes),
            });
            let failed = if let Slot::Failing(_, error) = &slot { Err(error.clone()) } else { Ok(()) };
            shared.settle_outcome(&ask, &result.as_ref().map(|_| ()).map_err(Error::clone).and(failed));
            if let Handle::Written(written) = &*file {
                let mut now = lock(&written.slot);
                match (&*now, slot) {
                    (Slot::Closed, Slot::Sink(sink)) => {
                        drop(now);
                        // Closed while it was busy: its writer was killed.
                        shared.settle_outcome(&ask, &caught(|| sink.finish()));
                    }
                    (Slot::Closed, _) => {}
                    (_, slot) => *now = slot,
                }
            }
            // What the writer changed is there at his next read.
            shared.kernel.notices.get().iter().for_each(|notices| (notices.settle)(commands));
            answer.0.settle(result);
        });
        match behind {
            // Whoever wrote it goes on; the command does, too.
            true => pending.settle(Ok(taken)),
            false => self.parked.park(caller, Box::new(Waiting(pending))),
        }
    }

    /// Lets a write of a handle begin, unless the handle has failed before.
    fn admit(&self, ask: &Ask, written: &Written, bytes: &[u8]) -> Result<Work> {
        let mut slot = lock(&written.slot);
        if matches!(*slot, Slot::Control(_) | Slot::Failing(..)) && bytes.len() > LONGEST {
            drop(slot);
            let error = Error::new(Kind::TooLong, format!("{} bytes: a write holds {LONGEST} at most", bytes.len()));
            self.settle_outcome(ask, &Err(error.clone()));
            return Err(error);
        }
        match std::mem::replace(&mut *slot, Slot::Busy) {
            Slot::Control(control) => Ok(Work::Commands(control)),
            Slot::Sink(sink) => Ok(Work::Stream(sink)),
            Slot::Failing(_, error) => {
                *slot = Slot::Failed;
                Err(error)
            }
            Slot::Broken(error) => {
                *slot = Slot::Broken(error.clone());
                Err(error)
            }
            Slot::Busy => fail!(Busy, "another write of this open file is being carried out"),
            // Neither is noted: what failed before it is what people ask for.
            Slot::Failed => {
                *slot = Slot::Failed;
                fail!(Cancelled, "a command before this one failed")
            }
            Slot::Closed => {
                *slot = Slot::Closed;
                fail!(Cancelled, "the stream failed before this write")
            }
        }
    }

    /// Notes what came of a write for `error`, and a failure in the journal.
    fn settle_outcome(&self, ask: &Ask, result: &Result<()>) {
        let path = self.table.path(ask.ino);
        self.journal.outcome(super::shared::parent(&path), result);
        if let Err(error) = result {
            self.journal.note(ask.caller.clone(), ask.name, path.trim_start_matches('/').to_owned(), error);
        }
    }
}

/// How a write of commands ended.
enum Ended {
    /// All of them are done.
    Done(usize),
    /// The first one failed.
    Failed(Error),
    /// So many bytes of commands are done, then one failed.
    Partly(usize, Error),
}

impl Ended {
    /// With what the handle becomes.
    fn after(self, control: Arc<dyn Control>) -> Outcome {
        match self {
            Ended::Done(bytes) => (Ok(bytes), Slot::Control(control)),
            Ended::Failed(error) => (Err(error), Slot::Failed),
            Ended::Partly(bytes, error) => (Ok(bytes), Slot::Failing(control, error)),
        }
    }
}

/// Carries out the commands of one write, a line each. A command never spans writes.
fn run(control: &dyn Control, bytes: &[u8], uid: u32) -> Ended {
    let mut done = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let result = caught(|| match Command::read(text, uid)? {
            Some(command) => control.run(command),
            None => Ok(()),
        });
        match result {
            Ok(()) => done += line.len(),
            Err(error) if done == 0 => return Ended::Failed(error),
            Err(error) => return Ended::Partly(done, error),
        }
    }
    Ended::Done(bytes.len())
}

/// Whether the writer does not wait: the last command of the write ends in `&`.
fn in_background(bytes: &[u8]) -> bool {
    let last = bytes.trim_ascii().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    matches!(Command::read(last, 0), Ok(Some(Command { background: true, .. })))
}

fn stream(mut sink: Box<dyn Sink>, offset: u64, bytes: &[u8]) -> Outcome {
    match caught(|| sink.write(offset, bytes)) {
        Ok(()) => (Ok(bytes.len()), Slot::Sink(sink)),
        // A writer that has to handle a signal may go on after it.
        Err(error) if error.kind() == Kind::Again => (Err(error), Slot::Sink(sink)),
        Err(error) => (Err(error.clone()), Slot::Broken(error)),
    }
}

/// A writer that waits for what it wrote.
struct Pending {
    reply: Mutex<Option<ReplyWrite>>,
    cancel: Cancel,
}

impl Pending {
    fn settle(&self, result: Result<usize>) {
        let reply = lock(&self.reply).take();
        match (reply, result) {
            (Some(reply), Ok(bytes)) => reply.written(u32::try_from(bytes).unwrap_or(u32::MAX)),
            (Some(reply), Err(error)) => reply.refuse(error.errno()),
            (None, _) => {}
        }
    }
}

/// Whoever carries out a write owes its writer an answer, also if it fails on the way.
struct Answer(Arc<Pending>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.settle(Err(Error::new(Kind::Io, "ctrfs has a bug here: its standard error says where")));
    }
}

/// The watch over that writer.
struct Waiting(Arc<Pending>);

impl Waiter for Waiting {
    fn attempt(&mut self) -> bool {
        lock(&self.0.reply).is_none()
    }

    fn give_up(self: Box<Self>, error: Error) {
        self.0.cancel.cancel();
        self.0.settle(Err(error));
    }

    fn minds(&self) -> u64 {
        !parked::stopping()
    }
}
