//! What went wrong, said once: a kind that a program can act on and a sentence that a person can read.
//!
//! [`Kind::errno`] is the only place where ctrfs chooses an errno (DESIGN 4, the errno table).

use std::fmt;
use std::sync::Arc;

/// The result of everything in ctrfs that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was not done, in the terms of `docs/semantics.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object.
    NotFound,
    /// An object of this name exists.
    Exists,
    /// The object is already in the state that was asked for.
    Already,
    /// A bad word or a bad argument.
    Invalid,
    /// Running, in use, or it has children.
    Busy,
    /// A namespace or directory that is not empty.
    NotEmpty,
    /// Refused by permission.
    Access,
    /// Refused by policy, or because this kind of file cannot do it.
    Policy,
    /// The mount is read-only.
    ReadOnly,
    /// No space, or a quota.
    NoSpace,
    /// containerd is not there.
    Away,
    /// The deadline passed.
    Deadline,
    /// The process is gone.
    Gone,
    /// The blob is known, but not on this host.
    NotLocal,
    /// The bytes are not those of the digest.
    Digest,
    /// A corrupt archive or stream.
    Corrupt,
    /// An unknown compression or encryption, or the server lacks the service.
    Unsupported,
    /// The object was replaced since it was opened.
    Stale,
    /// A command, a document or a layer over its limit.
    TooLong,
    /// A command after one that failed.
    Cancelled,
    /// The reader of a bounded stream was overrun.
    Overrun,
    /// Nothing to read now, and the reader does not want to wait; or too much is under way already.
    Again,
    /// The caller is about to die or has a signal to handle.
    Interrupted,
    /// The file has no such extended attribute.
    NoAttribute,
    /// The buffer offered for an answer is too small.
    Range,
    /// The path names something that is not a directory.
    NotDirectory,
    /// The path names a directory.
    IsDirectory,
    /// A name that cannot be.
    NameTooLong,
    /// Stored bytes cannot be read, or are fewer than their record says.
    Io,
    /// The answer needs a call, and this thread must not wait: the request is run again where it may
    /// ([`crate::wait`]). Never seen by a caller of the mount.
    WouldWait,
    /// What the answer needs is being made by somebody else: the request is parked and asked again. Never seen by a
    /// caller of the mount.
    NotYet,
}

impl Kind {
    /// The errno of this kind: the only errno table of ctrfs.
    pub fn errno(self) -> i32 {
        match self {
            Kind::NotFound => libc::ENOENT,
            Kind::Exists => libc::EEXIST,
            Kind::Already => libc::EALREADY,
            Kind::Invalid => libc::EINVAL,
            Kind::Busy => libc::EBUSY,
            Kind::NotEmpty => libc::ENOTEMPTY,
            Kind::Access => libc::EACCES,
            Kind::Policy => libc::EPERM,
            Kind::ReadOnly => libc::EROFS,
            Kind::NoSpace => libc::ENOSPC,
            Kind::Away => libc::EHOSTDOWN,
            Kind::Deadline => libc::ETIMEDOUT,
            Kind::Gone => libc::ESRCH,
            Kind::NotLocal | Kind::NoAttribute => libc::ENODATA,
            Kind::Digest => libc::EBADMSG,
            Kind::Corrupt => libc::EUCLEAN,
            Kind::Unsupported => libc::EOPNOTSUPP,
            Kind::Stale => libc::ESTALE,
            Kind::TooLong => libc::EFBIG,
            Kind::Cancelled => libc::ECANCELED,
            Kind::Overrun => libc::EPIPE,
            Kind::Again | Kind::WouldWait | Kind::NotYet => libc::EAGAIN,
            Kind::Interrupted => libc::EINTR,
            Kind::Range => libc::ERANGE,
            Kind::NotDirectory => libc::ENOTDIR,
            Kind::IsDirectory => libc::EISDIR,
            Kind::NameTooLong => libc::ENAMETOOLONG,
            Kind::Io => libc::EIO,
        }
    }
}

/// How many characters of a command are shown with its failure.
const SHOWN: usize = 400;

/// A failure: its kind, a sentence that names the object, the cause and the remedy, and what caused it.
/// Cheap to clone, so that one failed build can be told to everybody who waited for it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// The command that failed, and the byte of it that is at fault, where one is.
    place: Option<(String, Option<usize>)>,
}

impl Error {
    /// A failure of `kind`, told by `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), source: None, place: None }))
    }

    /// The same with the error that caused it.
    pub fn caused(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), source: Some(source.into()), place: None }))
    }

    /// The kind, for code that decides by it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The errno that the caller of the mount sees.
    pub fn errno(&self) -> i32 {
        self.0.kind.errno()
    }

    /// The same failure with words before its sentence that say what was being done.
    pub fn context(self, what: impl fmt::Display) -> Error {
        let message = format!("{what}: {}", self.0.message);
        let place = self.0.place.clone();
        Error(Arc::new(Inner { kind: self.0.kind, message, source: Some(Box::new(self)), place }))
    }

    /// The same failure, of the command `line`, whose byte `at` is at fault.
    pub fn at(self, line: &str, at: usize) -> Error {
        let place = Some((line.to_owned(), Some(at)));
        Error(Arc::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            source: Some(Box::new(self)),
            place,
        }))
    }

    /// The same failure, of the verb `verb` in the command `line`.
    pub fn about(self, line: &str, verb: &str) -> Error {
        let message = format!("{verb}: {}", self.0.message);
        let place = Some((line.to_owned(), self.0.place.as_ref().and_then(|(_, at)| *at)));
        Error(Arc::new(Inner { kind: self.0.kind, message, source: Some(Box::new(self)), place }))
    }

    /// The command that failed, with a line below it that points at the word at fault: two lines, or one where no
    /// word is.
    pub fn place(&self) -> Option<String> {
        let (line, at) = self.0.place.as_ref()?;
        // Of a long line, what stands around the fault.
        let fault = line.char_indices().take_while(|(n, _)| at.is_some_and(|at| *n < at)).count();
        let skipped = fault.saturating_sub(SHOWN / 2);
        let shown = line.chars().skip(skipped).take(SHOWN);
        let shown: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(match at {
            Some(_) => format!("{shown}\n{}^", " ".repeat(fault - skipped)),
            None => shown,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

impl From<std::io::Error> for Error {
    /// An error of the host's file system, by its errno where one of our kinds has it.
    fn from(e: std::io::Error) -> Error {
        let kind = match e.raw_os_error() {
            Some(libc::ENOENT) => Kind::NotFound,
            Some(libc::EEXIST) => Kind::Exists,
            Some(libc::EACCES) => Kind::Access,
            Some(libc::EPERM) => Kind::Policy,
            Some(libc::EROFS) => Kind::ReadOnly,
            Some(libc::ENOSPC | libc::EDQUOT) => Kind::NoSpace,
            Some(libc::EBUSY) => Kind::Busy,
            Some(libc::EINTR) => Kind::Interrupted,
            Some(libc::ENOTDIR) => Kind::NotDirectory,
            Some(libc::EISDIR) => Kind::IsDirectory,
            Some(libc::ENAMETOOLONG) => Kind::NameTooLong,
            _ => Kind::Io,
        };
        Error::caused(kind, e.to_string(), e)
    }
}

/// Shorthand for `Err(Error::new(kind, format!(…)))`.
#[macro_export]
macro_rules! fail {
    ($kind:ident, $($arg:tt)*) => {
        Err($crate::error::Error::new($crate::error::Kind::$kind, format!($($arg)*)))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_says_enosys_or_enotconn() {
        // ENOSYS would turn the operation off for the whole mount; ENOTCONN is what a dead mount says.
        for kind in [
            Kind::NotFound,
            Kind::Exists,
            Kind::Already,
            Kind::Invalid,
            Kind::Busy,
            Kind::NotEmpty,
            Kind::Access,
            Kind::Policy,
            Kind::ReadOnly,
            Kind::NoSpace,
            Kind::Away,
            Kind::Deadline,
            Kind::Gone,
            Kind::NotLocal,
            Kind::Digest,
            Kind::Corrupt,
            Kind::Unsupported,
            Kind::Stale,
            Kind::TooLong,
            Kind::Cancelled,
            Kind::Overrun,
            Kind::Again,
            Kind::Interrupted,
            Kind::NoAttribute,
            Kind::Range,
            Kind::NotDirectory,
            Kind::IsDirectory,
            Kind::NameTooLong,
            Kind::Io,
            Kind::WouldWait,
            Kind::NotYet,
        ] {
            assert!(![libc::ENOSYS, libc::ENOTCONN, 0].contains(&kind.errno()), "{kind:?}");
        }
    }

    #[test]
    fn context_keeps_the_kind_and_the_cause() {
        let error = Error::new(Kind::Away, "connection refused").context("images of k8s.io");
        assert_eq!(error.kind(), Kind::Away);
        assert_eq!(error.to_string(), "images of k8s.io: connection refused");
        assert!(std::error::Error::source(&error).is_some());
    }
}
