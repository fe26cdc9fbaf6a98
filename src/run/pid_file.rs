//! `--pid-file`: the pid of a task, in a file of the host.

use crate::error::{Error, Result};
use crate::fail;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file that gets its name once it holds the pid: whoever finds it can read it. Gone when dropped before.
pub struct PidFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes the file under another name, so that what is in the way is known before anything is started.
    pub fn new(path: &Path) -> Result<PidFile> {
        let (true, Some(name)) = (path.is_absolute(), path.file_name()) else {
            return fail!(
                Invalid,
                "--pid-file {}: say the whole path; ctrfs does not stand where you stand",
                path.display()
            );
        };
        // As `ctr` has it: a dot before the name.
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        let temporary = path.with_file_name(hidden);
        let file = File::options().write(true).create_new(true).open(&temporary);
        let file = file.map_err(|e| Error::from(e).context(format!("--pid-file {}", temporary.display())))?;
        Ok(PidFile { path: path.to_owned(), temporary, file })
    }

    /// Writes the pid, as `ctr` does without a newline, and names the file.
    pub fn write(mut self, pid: u32) -> Result<()> {
        let told = |e: std::io::Error| Error::from(e).context(format!("--pid-file {}", self.path.display()));
        self.file.write_all(pid.to_string().as_bytes()).map_err(told)?;
        std::fs::rename(&self.temporary, &self.path).map_err(told)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // After a rename there is none of this name any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
