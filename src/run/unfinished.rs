//! What is being made, noted on the disk before containerd is asked for it. A ctrfs that is killed in the middle, or a
//! containerd that goes away, leaves half a task, which holds its container's id for ever; the next ctrfs, or the next
//! connection, finds the note and puts that away. What runs already is left alone, whoever waits for it.

use super::Engine;
use super::store::{Store, subdirectories};
use super::task::{delete_task, delete_unseen, remove};
use crate::containerd::{Namespace, Owner, Status};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// What the names of notes begin with, in the directory of a container.
const PREFIX: &str = "unfinished-";

/// How long after it was asked for a container may be made. One that was made later is somebody else's.
const MADE_WITHIN: Duration = Duration::from_secs(30);

/// A note of what is being made. Dropped without another word, it stays, for whoever looks after such notes.
pub struct Note {
    path: PathBuf,
    /// When containerd was asked for the container.
    asked: Option<SystemTime>,
    starting: bool,
    /// There is nothing more to be noted.
    settled: bool,
}

impl Note {
    fn write(&self, owner: &str) -> Result<()> {
        let asked = self.asked.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        let text = json!({
            "owner": owner, "starting": self.starting, "seconds": asked.as_secs(), "nanos": asked.subsec_nanos(),
        });
        let new = self.path.with_extension("new");
        fs::write(&new, text.to_string())?;
        Ok(fs::rename(&new, &self.path)?)
    }

    /// The container is asked for now: one that is made in a moment is ours.
    pub fn creating(&mut self) -> Result<()> {
        self.asked = Some(SystemTime::now());
        self.write(&Owner::of_this().to_string())
    }

    /// All is made, and only its start is asked for: if there is no task some time later, it may have run.
    pub fn starting(&mut self) -> Result<()> {
        self.starting = true;
        self.write(&Owner::of_this().to_string())
    }

    /// Nothing is left to be done: it is made, or nothing of it stays.
    pub fn done(mut self) {
        self.settled = true;
        take_away(&self.path);
    }

    /// It failed, and what is left of it was put away as far as that could be: where it is not known whether containerd
    /// carried out what it was asked for, somebody has to look later.
    pub fn failed(self, error: &Error) {
        if !matches!(error.kind(), Kind::Away | Kind::Deadline | Kind::Interrupted) {
            self.done();
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if !self.settled
            && let Err(error) = self.write("")
        {
            tracing::warn!(path = %self.path.display(), %error, "what is half made is looked after by the next ctrfs");
        }
    }
}

/// Removes a note, and its container's directory where nothing else is in it.
fn take_away(note: &Path) {
    drop(fs::remove_file(note));
    note.parent().iter().for_each(|dir| drop(fs::remove_dir(dir)));
}

/// A note that nobody works on any more.
struct Left {
    id: String,
    path: PathBuf,
    asked: SystemTime,
    starting: bool,
}

impl Store {
    /// Notes that something is being made of a container.
    pub fn begin(&self, ns: &Namespace, id: &str) -> Result<Note> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = self.container(ns, id)?;
        Store::make_directory(&dir)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let mut note = Note { path, asked: None, starting: false, settled: true };
        note.write(&Owner::of_this().to_string())?;
        note.settled = false;
        Ok(note)
    }

    /// The notes of a namespace whose writer is gone, or has given up.
    fn left(&self, ns: &Namespace) -> Result<Vec<Left>> {
        let mut all = Vec::new();
        for dir in subdirectories(&self.namespace(ns)?) {
            let Some(id) = dir.file_name().and_then(|name| name.to_str()) else { continue };
            let names = fs::read_dir(&dir).into_iter().flatten().flatten();
            let notes = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
            all.extend(notes.filter_map(|entry| Left::read(id, &entry.path())));
        }
        Ok(all)
    }
}

impl Left {
    fn read(id: &str, path: &Path) -> Option<Left> {
        let note: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let owner = note["owner"].as_str()?;
        if !owner.is_empty() && !Owner::parse(owner).is_some_and(|owner| owner.is_gone()) {
            return None;
        }
        let nanos = u32::try_from(note["nanos"].as_u64()?).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        let asked = SystemTime::UNIX_EPOCH.checked_add(Duration::new(note["seconds"].as_u64()?, nanos))?;
        Some(Left { id: id.to_owned(), path: path.to_owned(), asked, starting: note["starting"].as_bool()? })
    }

    /// Puts away what is half made of it.
    fn undo(&self, engine: &Engine, ns: &Namespace) -> Result<()> {
        let id = &self.id;
        let Some(container) = ns.container(id)? else { return Ok(()) };
        let made_after = container.created.and_then(|at| at.duration_since(self.asked).ok());
        // It may have run, have ended, and have been put away by somebody who keeps the container.
        let is_recent = self.asked.elapsed().is_ok_and(|age| age < MADE_WITHIN * 2);
        let ours = made_after.is_some_and(|after| after < MADE_WITHIN);
        let task = ns.live_task(id)?;
        tracing::debug!(id, ours, starting = self.starting, task = ?task.as_ref().map(|task| task.status), "half made");
        match task {
            // Half of somebody else's may be there for a moment.
            Some(task) if task.status == Status::Created && !ours && engine.store.of(&task.stdout).is_none() => {
                return Ok(());
            }
            Some(task) if matches!(task.status, Status::Created | Status::Unknown) => delete_task(ns, id, true)?,
            Some(_) => return Ok(()),
            None if self.starting && !is_recent => return Ok(()),
            None => delete_unseen(ns, id)?,
        }
        if ours {
            remove(engine, ns, id, false)?;
        }
        tracing::info!(id, "what was half made of it is put away");
        Ok(())
    }
}

impl Engine {
    /// Puts away what others left half made in a namespace.
    pub(super) fn finish_others(&self, ns: &Namespace) -> Result<()> {
        for left in self.store.left(ns)? {
            match left.undo(self, ns) {
                Ok(()) => take_away(&left.path),
                Err(error) => tracing::warn!(id = left.id, %error, "what is half made of it stays for now"),
            }
        }
        Ok(())
    }
}
