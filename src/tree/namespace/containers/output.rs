//! `/namespaces/<namespace>/containers/<id>/task/{stdin,stdout,stderr,wait}`: what a process reads and writes, as files.

use crate::containerd::Namespace;
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::{Followed, Follower, Sink, Stream};
use crate::run::Engine;
use crate::run::output::{Output, Watch, Watching};
use crate::run::process::Process;
use crate::run::store::Files;
use crate::tree::namespace::Ns;
use crate::wait;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// An output of a process.
pub struct Log {
    output: Arc<Output>,
    path: PathBuf,
    watch: Watch,
    /// Finds who writes it; asked only when somebody follows.
    process: Box<dyn Fn() -> Result<Arc<Process>> + Send + Sync>,
}

impl Log {
    /// The output in a file, if that is a regular one.
    pub fn open(
        path: &Path,
        watch: &Watch,
        process: impl Fn() -> Result<Arc<Process>> + Send + Sync + 'static,
    ) -> Result<Option<Arc<dyn Stream>>> {
        let Some(output) = Output::open(path)? else { return Ok(None) };
        let (path, watch) = (path.to_owned(), watch.clone());
        Ok(Some(Arc::new(Log { output: Arc::new(output), path, watch, process: Box::new(process) })))
    }
}

impl Stream for Log {
    fn generation(&self) -> u64 {
        self.output.id()
    }
    fn modified(&self) -> Option<SystemTime> {
        self.output.modified()
    }
    fn size(&self) -> u64 {
        self.output.size()
    }
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.output.read(offset, length)
    }
    fn follow(&self) -> Result<Box<dyn Follower>> {
        let process = (self.process)()?;
        let watching = self.watch.add(&self.path, false)?;
        let output = Arc::clone(&self.output);
        Ok(Box::new(LogFollower { output, process, origin: 0, at: 0, _watching: watching }))
    }
}

/// A reader of an output that waits at its end, until the process is gone.
struct LogFollower {
    output: Arc<Output>,
    process: Arc<Process>,
    /// What was lost because it was cut off before it was read.
    origin: u64,
    at: u64,
    _watching: Watching,
}

impl Follower for LogFollower {
    fn read(&mut self, offset: u64, length: usize) -> Result<Followed> {
        let from = self.origin.saturating_add(offset);
        // Asked before the bytes: what it wrote last is there when it is over.
        let over = self.process.is_over();
        let head = self.output.head();
        if from > 0 && from < head {
            // Told once: the next read goes on with the oldest that is kept.
            self.origin = head - offset;
            return fail!(Overrun, "the output at offset {from} was cut off; what is kept begins at {head}");
        }
        let from = from.max(head);
        self.origin = from - offset;
        let bytes = self.output.read(from, length)?;
        self.at = from + bytes.len() as u64;
        match (bytes.is_empty(), over) {
            (false, _) => Ok(Followed::Bytes(bytes)),
            (true, true) => Ok(Followed::End),
            (true, false) => Ok(Followed::Nothing),
        }
    }
    fn ready(&self) -> bool {
        self.output.size() > self.at || self.process.is_over()
    }
}

/// `wait`: the exit status, once there is one and all output is there.
pub struct Wait {
    process: Box<dyn Fn() -> Result<Arc<Process>> + Send + Sync>,
}

impl Wait {
    /// For the end of a process, which is found when somebody waits.
    pub fn stream(process: impl Fn() -> Result<Arc<Process>> + Send + Sync + 'static) -> Arc<dyn Stream> {
        Arc::new(Wait { process: Box::new(process) })
    }
}

impl Stream for Wait {
    fn generation(&self) -> u64 {
        0
    }
    fn modified(&self) -> Option<SystemTime> {
        None
    }
    fn size(&self) -> u64 {
        // Of a file of no size some programs read nothing (busybox).
        4096
    }
    fn read(&self, _: u64, _: usize) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn follow(&self) -> Result<Box<dyn Follower>> {
        Ok(Box::new(WaitFollower { process: (self.process)()?, at: 0 }))
    }
}

struct WaitFollower {
    process: Arc<Process>,
    at: u64,
}

impl WaitFollower {
    fn text(&self) -> Option<String> {
        // Of one that nobody can ask any more nothing is said.
        self.process.is_over().then(|| self.process.exit().map(|exit| format!("{}\n", exit.status)).unwrap_or_default())
    }
}

impl Follower for WaitFollower {
    fn read(&mut self, offset: u64, length: usize) -> Result<Followed> {
        let Some(text) = self.text() else { return Ok(Followed::Nothing) };
        let rest = usize::try_from(offset).ok().and_then(|offset| text.as_bytes().get(offset..)).unwrap_or_default();
        let part = rest.get(..length).unwrap_or(rest);
        self.at = offset + part.len() as u64;
        Ok(if part.is_empty() { Followed::End } else { Followed::Bytes(part.to_vec()) })
    }
    fn ready(&self) -> bool {
        self.process.is_over()
    }
}

/// `stdin`: a fifo, whose last writer's close ends it.
pub struct Stdin {
    fifo: File,
    path: PathBuf,
    engine: Arc<Engine>,
    ns: Namespace,
    id: String,
    exec_id: String,
    terminal: bool,
}

impl Stdin {
    /// Opens the input of a process, if it has one of ours.
    pub fn open(
        ns: &Ns,
        id: &str,
        exec_id: &str,
        files: Option<Files>,
        terminal: bool,
    ) -> Result<Option<Box<dyn Sink>>> {
        let Some(files) = files else { return Ok(None) };
        let (engine, namespace) = (Arc::clone(&ns.shared.engine), ns.namespace.clone());
        let (fifo, path) = (files.write_stdin()?, files.stdin());
        engine.writers.enter(&path);
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        Ok(Some(Box::new(Stdin { fifo, path, engine, ns: namespace, id, exec_id, terminal })))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        // The shim has the fifo open for writing itself: it closes its end when it is told to. A terminal it would close as
        // a whole, and what is written to it would be lost; its end is told by Ctrl-D.
        if self.engine.writers.leave(&self.path) && !self.terminal {
            let closed = wait::until(Instant::now() + CLOSE, || self.ns.close_stdin(&self.id, &self.exec_id));
            if let Err(error) = closed {
                tracing::debug!(id = self.id, exec_id = self.exec_id, %error, "its input is not ended: it has ended");
            }
        }
    }
}

/// How long telling the end of an input may take.
const CLOSE: Duration = Duration::from_secs(10);

/// How long a full pipe is waited for before it is asked whether the writer still wants to.
const TURN: libc::c_int = 50;

impl Sink for Stdin {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.fifo.write(rest) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut poll = libc::pollfd { fd: self.fifo.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                    // SAFETY: one descriptor, which is ours.
                    unsafe { libc::poll(&mut poll, 1, TURN) };
                    wait::check()?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Err(Error::caused(Kind::Overrun, "stdin: the process does not read it any more", error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
