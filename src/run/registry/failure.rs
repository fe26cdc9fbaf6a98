//! What a registry says when it does not do what it is asked, as one of our errors.

use crate::error::{Error, Kind};
use oci_client::errors::{OciDistributionError, OciErrorCode};

/// The error of a registry, as one of ours.
pub fn told(name: &str, error: OciDistributionError) -> Error {
    use OciDistributionError as E;
    let by_code = |code: u16| match code {
        401 | 403 => Kind::Access,
        404 => Kind::NotFound,
        408 | 429 | 500..=599 => Kind::Again,
        _ => Kind::Io,
    };
    let (kind, text) = match &error {
        E::RegistryError { envelope, .. } => {
            let first = envelope.errors.first();
            let kind = match first.map(|e| &e.code) {
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => Kind::Access,
                Some(OciErrorCode::Toomanyrequests) => Kind::Again,
                Some(OciErrorCode::DigestInvalid | OciErrorCode::SizeInvalid) => Kind::Digest,
                Some(OciErrorCode::ManifestInvalid | OciErrorCode::NameInvalid | OciErrorCode::TagInvalid) => {
                    Kind::Invalid
                }
                Some(
                    OciErrorCode::BlobUnknown
                    | OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::ManifestBlobUnknown,
                ) => Kind::NotFound,
                _ => Kind::Io,
            };
            (kind, first.map_or_else(|| error.to_string(), |e| e.message.clone()))
        }
        E::ServerError { code, message, .. } => (
            by_code(*code),
            format!("the registry answers {code}: {}", message.chars().take(500).collect::<String>().trim()),
        ),
        E::UnauthorizedError { .. } => (Kind::Access, "the registry wants to know who asks; see --user-file".into()),
        E::AuthenticationFailure(reason) => {
            (Kind::Access, format!("not let in: {}", reason.chars().take(500).collect::<String>()))
        }
        E::ImageManifestNotFoundError(_) => (Kind::NotFound, error.to_string()),
        E::DigestError(_) => (Kind::Digest, error.to_string()),
        E::RequestError(e) if e.is_timeout() => (Kind::Deadline, "the registry is silent".into()),
        E::RequestError(e) if e.is_connect() => {
            (Kind::Away, format!("the registry cannot be reached: {}", innermost(e)))
        }
        E::RequestError(e) => (e.status().map_or(Kind::Again, |s| by_code(s.as_u16())), innermost(e)),
        E::UnsupportedSchemaVersionError(_) | E::UnsupportedMediaTypeError(_) => (Kind::Unsupported, error.to_string()),
        E::IoError(_) => (Kind::Again, error.to_string()),
        _ => (Kind::Io, error.to_string()),
    };
    Error::caused(kind, format!("{name}: {text}"), error)
}

/// The innermost reason: what stands around it says only that a request failed.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
