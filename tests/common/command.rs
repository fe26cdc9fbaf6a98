//! Commands, as a shell writes them: into a `ctl` of a mount.

use super::World;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// Why a command was not carried out.
#[derive(Debug)]
pub struct Refusal {
    pub errno: i32,
    /// What `error` beside the `ctl` says.
    pub said: String,
}

impl World {
    /// Writes a command into `<path>/ctl` below the namespace's directory (its own, if the path is empty).
    pub fn command(&self, path: &str, line: &str) -> Result<(), Refusal> {
        let directory = self.mount().at_path(&self.path(path));
        let opened = std::fs::File::options().write(true).custom_flags(libc::O_CLOEXEC).open(directory.join("ctl"));
        let written = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|error| {
            let said = std::fs::read_to_string(directory.join("error")).unwrap_or_default();
            Refusal { errno: error.raw_os_error().unwrap_or(0), said }
        })
    }

    /// The same for a command that has to succeed.
    #[track_caller]
    pub fn order(&self, path: &str, line: &str) {
        if let Err(refusal) = self.command(path, line) {
            panic!("{line}: {refusal:?}");
        }
    }

    /// The errno of a command that has to fail.
    #[track_caller]
    pub fn refused(&self, path: &str, line: &str) -> i32 {
        match self.command(path, line) {
            Ok(()) => panic!("{line}: done, and should not be"),
            Err(refusal) => refusal.errno,
        }
    }
}
