//! A gRPC status, as one of our errors.

use super::rpc::Call;
use crate::error::{Error, Kind};
use tonic::{Code, Status};

/// Whether `status` was not sent by a server but made here, because the connection could not be had or was lost.
pub(super) fn is_transport(status: &Status) -> bool {
    let made_here = std::error::Error::source(status).is_some();
    made_here && matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Internal | Code::Cancelled)
}

/// The error of a failed call: it names the object and keeps containerd's words.
pub(super) fn error(call: Call<'_>, status: &Status) -> Error {
    let kind = kind(status);
    let text = match kind {
        Kind::Away => format!("containerd is not there: {}", cause(status)),
        Kind::Unsupported if status.code() == Code::Unimplemented => {
            format!("this containerd has no {}: {}", call.method, status.message())
        }
        _ => status.message().to_string(),
    };
    Error::caused(kind, format!("{}: {text}", call.object), status.clone())
}

/// The innermost reason: a transport error says little itself.
pub(super) fn cause(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_string(),
        None => error.to_string(),
    }
}

fn kind(status: &Status) -> Kind {
    if is_transport(status) {
        return Kind::Away;
    }
    let text = status.message();
    let has = |part: &str| text.contains(part);
    match status.code() {
        Code::NotFound if has("process already finished") => Kind::Gone,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::Exists,
        Code::InvalidArgument => Kind::Invalid,
        Code::FailedPrecondition if has("must be empty") => Kind::NotEmpty,
        Code::FailedPrecondition if has("commit digest") || has("size validation") => Kind::Digest,
        Code::FailedPrecondition => Kind::Busy,
        Code::Unimplemented => Kind::Unsupported,
        // Both ends say it in their own way: the answer is longer than one of them takes.
        Code::OutOfRange if has("message length") => Kind::TooLong,
        Code::ResourceExhausted => Kind::TooLong,
        Code::OutOfRange => Kind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Access,
        Code::Aborted => Kind::Again,
        Code::DeadlineExceeded | Code::Cancelled => Kind::Deadline,
        Code::Unavailable if has("locked") => Kind::Busy,
        Code::Unavailable => Kind::Away,
        _ => unknown(text),
    }
}

/// What the shim and runc say without a code.
fn unknown(text: &str) -> Kind {
    const TEXTS: &[(&str, Kind)] = &[
        ("no space left on device", Kind::NoSpace),
        ("disk quota exceeded", Kind::NoSpace),
        ("cannot start a running process", Kind::Already),
        ("cannot pause a paused container", Kind::Already),
        ("cannot resume a running process", Kind::Already),
        ("cannot delete a running process", Kind::Busy),
        ("cannot exec in a paused state", Kind::Again),
        ("cannot exec in a stopped state", Kind::Gone),
        ("container does not exist", Kind::Gone),
        ("CRIU version check failed", Kind::Unsupported),
        ("no processor for media-type", Kind::Unsupported),
        ("container with given ID already exists", Kind::Exists),
        ("file exists", Kind::Exists),
        ("failed to resolve runtime path", Kind::NotFound),
        ("executable file not found", Kind::NotFound),
        ("no such file or directory", Kind::NotFound),
        ("permission denied", Kind::Access),
        ("unable to find user", Kind::NotFound),
        ("invalid argument", Kind::Invalid),
    ];
    TEXTS.iter().find(|(part, _)| text.contains(part)).map_or(Kind::Io, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_the_kind_that_the_tree_promises() {
        for (code, text, expected) in [
            (Code::NotFound, "image \"x\": not found", Kind::NotFound),
            (Code::NotFound, "process already finished", Kind::Gone),
            (Code::FailedPrecondition, "namespace \"x\" must be empty, but it still has images", Kind::NotEmpty),
            (Code::FailedPrecondition, "cannot remove snapshot with child", Kind::Busy),
            (Code::Unavailable, "ref x locked for 3s", Kind::Busy),
            (Code::Unknown, "cannot exec in a paused state", Kind::Again),
            (Code::Unknown, "whatever", Kind::Io),
            (Code::OutOfRange, "Error, decoded message length too large: found 6", Kind::TooLong),
            (Code::Unimplemented, "unknown service", Kind::Unsupported),
        ] {
            let call = Call::new("X.Y", "", &"thing");
            let error = error(call, &Status::new(code, text));
            assert_eq!(error.kind(), expected, "{text}");
            assert!(error.to_string().starts_with("thing: "));
        }
    }
}
