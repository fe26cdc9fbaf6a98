//! An image in a registry: found, fetched and sent, over the endpoints that stand for its host.
//!
//! The protocol is the crate `oci-client`'s; here is which endpoint is asked, as whom, and what is done when one fails.
//! Nothing is held whole but manifests. What a registry sends is not believed: containerd holds it against its digest.

mod args;
mod credentials;
mod failure;
mod hosts;
mod locator;

pub use args::RegistryArgs;
pub use locator::Locator;

use crate::containerd::{Client as Containerd, Descriptor, Digest};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use bytes::Bytes;
use failure::{innermost, told};
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use hosts::Host;
use oci_client::client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a registry may take for a blob that it is sent; a command can be cancelled before.
const UPLOAD: Duration = Duration::from_secs(6 * 3600);

/// The longest manifest or index.
const MANIFEST_BYTES: usize = 8 << 20;

/// What is handed on at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Of a slow registry less is handed on, so that it is seen to move.
const PIECE_TIME: Duration = Duration::from_millis(250);

/// How often a failed question is asked again.
const TRIES: u32 = 5;

/// One endpoint, ready to be asked.
struct Endpoint {
    host: Host,
    client: oci_client::Client,
    auth: RegistryAuth,
}

/// An image's repository in a registry.
pub struct Registry {
    containerd: Containerd,
    locator: Locator,
    endpoints: Vec<Endpoint>,
    /// Which of them takes pushes.
    pushes: OnceLock<usize>,
}

/// A blob that is coming in.
pub struct Incoming {
    containerd: Containerd,
    name: String,
    stream: BoxStream<'static, std::result::Result<Bytes, std::io::Error>>,
    over: bool,
    /// What the connection ended with, once what came before it is handed on.
    broken: Option<std::io::Error>,
}

impl Registry {
    /// The registry of a full reference.
    pub fn new(containerd: &Containerd, reference: &str, args: &RegistryArgs) -> Result<Registry> {
        args.check()?;
        let locator = Locator::parse(reference)?;
        let mut endpoints = Vec::new();
        for host in hosts::of(&locator.host, args)? {
            let name = host.address.split('/').next().unwrap_or_default();
            // A mirror is another house: what was given for this one is not for it.
            let auth = match name == locator.host || (args.user.is_none() && args.user_file.is_none()) {
                true => credentials::of(if name == "registry-1.docker.io" { "docker.io" } else { name }, args)?,
                false if endpoints_are_of(&locator, &host) => credentials::of(&locator.host, args)?,
                false => RegistryAuth::Anonymous,
            };
            endpoints.push(Endpoint { client: client(&host)?, host, auth });
        }
        Ok(Registry { containerd: containerd.clone(), locator, endpoints, pushes: OnceLock::new() })
    }

    /// Where the image is.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// What the reference names: its descriptor, and the bytes.
    pub fn resolve(&self) -> Result<(Descriptor, Bytes)> {
        let wanted = self.locator.digest.as_ref().map(Digest::to_string);
        let bytes = self.ask(|host| host.resolve, |e| self.manifest_from(e, wanted.as_deref(), ACCEPTED))?;
        let digest = self.locator.digest.clone().unwrap_or_else(|| Digest::of(&bytes));
        let media_type = media_type(&bytes)?;
        let size = bytes.len() as u64;
        let (annotations, platform, artifact_type) = (Default::default(), None, None);
        Ok((Descriptor { media_type: media_type.into(), digest, size, annotations, platform, artifact_type }, bytes))
    }

    /// A manifest or an index of this repository.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let accepted: &[&str] = &[&descriptor.media_type, "*/*"];
        let wanted = descriptor.digest.to_string();
        let bytes = self.ask(|host| host.pull, |e| self.manifest_from(e, Some(&wanted), accepted))?;
        match descriptor.digest.verify(&bytes) {
            true => Ok(bytes),
            false => fail!(Digest, "{}: the registry sent something else for {wanted}", self.name()),
        }
    }

    fn manifest_from(&self, endpoint: &Endpoint, digest: Option<&str>, accepted: &[&str]) -> Result<Bytes> {
        let reference = self.reference(endpoint, digest);
        let work = endpoint.client.pull_manifest_raw(&reference, &endpoint.auth, accepted);
        let (bytes, _) = self.drive(SILENCE, work)?;
        if bytes.len() > MANIFEST_BYTES {
            return fail!(TooLong, "{}: a manifest of more than 8 MiB", self.name());
        }
        Ok(bytes)
    }

    /// The bytes of a blob from `offset` on.
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<(u64, Incoming)> {
        let name = format!("{} from {}", descriptor.digest, self.name());
        let wanted =
            oci_client::manifest::OciDescriptor { digest: descriptor.digest.to_string(), ..Default::default() };
        self.ask(
            |host| host.pull,
            |endpoint| {
                let reference = self.reference(endpoint, None);
                let registry = reference.resolve_registry().to_owned();
                let answer = self.drive(SILENCE, async {
                    endpoint.client.store_auth_if_needed(&registry, &endpoint.auth).await;
                    endpoint.client.pull_blob_stream_partial(&reference, &wanted, offset, None).await
                })?;
                let (begin, stream) = match answer {
                    BlobResponse::Full(sized) => (0, sized.stream),
                    BlobResponse::Partial(sized) => (offset, sized.stream),
                };
                let (containerd, name) = (self.containerd.clone(), name.clone());
                Ok((begin, Incoming { containerd, name, stream, over: false, broken: None }))
            },
        )
    }

    /// Whether the registry has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let endpoint = self.for_push()?;
        let reference = self.reference(endpoint, None);
        let digest = digest.to_string();
        self.again(|| {
            self.login(endpoint, &reference)?;
            self.drive(SILENCE, endpoint.client.blob_exists(&reference, &digest))
        })
    }

    /// Lets this repository have a blob that another one of the same registry has. Not every registry can.
    pub fn mount_blob(&self, digest: &Digest, from: &str) -> Result<()> {
        let endpoint = self.for_push()?;
        let reference = self.reference(endpoint, None);
        let source = Reference::with_tag(self.locator.host.clone(), from.into(), "latest".into());
        self.login(endpoint, &reference)?;
        self.drive(SILENCE, endpoint.client.mount_blob(&reference, &source, &digest.to_string()))
    }

    /// Sends a blob of a known length.
    pub fn push_blob<S>(&self, digest: &Digest, size: u64, bytes: S) -> Result<()>
    where
        S: Stream<Item = std::result::Result<Bytes, OciDistributionError>> + Send + 'static,
    {
        let endpoint = self.for_push()?;
        let reference = self.reference(endpoint, None);
        self.login(endpoint, &reference)?;
        let digest = digest.to_string();
        self.drive(UPLOAD, endpoint.client.push_blob_stream(&reference, bytes, &digest, Some(size))).map(drop)
    }

    /// Sends a manifest; under the reference's tag, or only under its digest.
    pub fn push_manifest(&self, descriptor: &Descriptor, bytes: &[u8], is_target: bool) -> Result<()> {
        let endpoint = self.for_push()?;
        let digest = descriptor.digest.to_string();
        let tagged = is_target && !self.locator.tag.is_empty();
        let reference = self.reference(endpoint, (!tagged).then_some(&digest));
        let Ok(media_type) = descriptor.media_type.parse() else {
            return fail!(Invalid, "{:?} is no media type", descriptor.media_type);
        };
        self.login(endpoint, &reference)?;
        self.drive(SILENCE, endpoint.client.push_manifest_raw(&reference, bytes.to_vec(), media_type)).map(drop)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.locator.host, self.locator.repository)
    }

    /// The first endpoint that takes pushes and can be reached.
    fn for_push(&self) -> Result<&Endpoint> {
        if let Some(endpoint) = self.pushes.get().and_then(|at| self.endpoints.get(*at)) {
            return Ok(endpoint);
        }
        let mut failed = None;
        for (at, endpoint) in self.endpoints.iter().enumerate().filter(|(_, e)| e.host.push) {
            match self.login(endpoint, &self.reference(endpoint, None)) {
                Err(error) if error.kind() == Kind::Away => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
                Ok(()) => {
                    // Two may find out at once, and find the same.
                    let _ = self.pushes.set(at);
                    return Ok(endpoint);
                }
            }
        }
        let none = || Error::new(Kind::Policy, format!("{}: no host of it takes pushes", self.locator.host));
        Err(failed.unwrap_or_else(none))
    }

    /// The reference as an endpoint is asked for it.
    fn reference(&self, endpoint: &Endpoint, digest: Option<&str>) -> Reference {
        let (host, locator) = (&endpoint.host, &self.locator);
        let repository = match host.prefix.as_str() {
            "" => locator.repository.clone(),
            prefix => format!("{prefix}/{}", locator.repository),
        };
        let mut reference = match digest {
            Some(digest) => Reference::with_digest(locator.host.clone(), repository, digest.into()),
            None => Reference::with_tag(locator.host.clone(), repository, locator.tag.clone()),
        };
        // That it stands for another is told to a mirror.
        match endpoints_are_of(locator, host) {
            true => match digest {
                Some(digest) => {
                    Reference::with_digest(host.address.clone(), reference.repository().into(), digest.into())
                }
                None => Reference::with_tag(host.address.clone(), reference.repository().into(), locator.tag.clone()),
            },
            false => {
                reference.set_mirror_registry(host.address.clone());
                reference
            }
        }
    }

    /// Gets a token that also allows pushing, before questions that would only ask for one to pull.
    fn login(&self, endpoint: &Endpoint, reference: &Reference) -> Result<()> {
        self.drive(SILENCE, endpoint.client.auth(reference, &endpoint.auth, RegistryOperation::Push)).map(drop)
    }

    fn drive<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = std::result::Result<T, OciDistributionError>>,
    ) -> Result<T> {
        let name = self.name();
        self.containerd.drive(limit, &name, work)?.map_err(|e| told(&name, e))
    }

    /// Asks one endpoint after the other until one answers.
    fn ask<T>(&self, fits: impl Fn(&Host) -> bool, ask: impl Fn(&Endpoint) -> Result<T>) -> Result<T> {
        let mut failed: Option<Error> = None;
        for endpoint in self.endpoints.iter().filter(|e| fits(&e.host)) {
            match self.again(|| ask(endpoint)) {
                Ok(answer) => return Ok(answer),
                Err(error) if matches!(error.kind(), Kind::Interrupted | Kind::WouldWait | Kind::Digest) => {
                    return Err(error);
                }
                // The last is the registry itself: what it says counts, unless it cannot be reached and another said more.
                Err(error) if failed.is_some() && error.kind() == Kind::Away => {}
                Err(error) => failed = Some(error),
            }
        }
        Err(failed
            .unwrap_or_else(|| Error::new(Kind::Policy, format!("{}: no host of it may be asked", self.locator.host))))
    }

    /// Asks again where the failure may be a passing one.
    fn again<T>(&self, ask: impl Fn() -> Result<T>) -> Result<T> {
        let mut pause = Duration::from_millis(200);
        for _ in 1..TRIES {
            match ask() {
                Err(error) if error.kind() == Kind::Again => {
                    let end = Instant::now() + pause;
                    while Instant::now() < end {
                        wait::check()?;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    pause *= 2;
                }
                other => return other,
            }
        }
        ask().map_err(for_good)
    }
}

/// Whether an endpoint is the registry itself and no mirror of it.
fn endpoints_are_of(locator: &Locator, host: &Host) -> bool {
    host.address == locator.host || (locator.host == "docker.io" && host.address == "registry-1.docker.io")
}

impl Incoming {
    /// The next piece, of at most a mebibyte; none at the end.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(error) = self.broken.take() {
            return Err(self.told(error));
        }
        if self.over {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let stream = &mut self.stream;
        let work = async {
            let began = Instant::now();
            while piece.len() < PIECE_BYTES && began.elapsed() < PIECE_TIME {
                match stream.next().await {
                    Some(Ok(bytes)) => piece.extend_from_slice(&bytes),
                    Some(Err(error)) => return Err(error),
                    None => return Ok(true),
                }
            }
            Ok(false)
        };
        match self.containerd.drive(SILENCE, &self.name, work)? {
            Ok(over) => self.over = over,
            Err(error) if piece.is_empty() => return Err(self.told(error)),
            Err(error) => self.broken = Some(error),
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn told(&self, error: std::io::Error) -> Error {
        Error::caused(Kind::Again, format!("{}: {}", self.name, innermost(&error)), error)
    }
}

/// The error of what was tried often enough.
pub fn for_good(error: Error) -> Error {
    match error.kind() {
        Kind::Again => Error::caused(Kind::Io, error.to_string(), error),
        _ => error,
    }
}

/// What may be at the end of a reference.
const ACCEPTED: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "*/*",
];

/// What a document says that it is, or else what it looks like.
fn media_type(bytes: &[u8]) -> Result<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Looks {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        schema_version: u32,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let looks: Looks = serde_json::from_slice(bytes)
        .map_err(|e| Error::caused(Kind::Corrupt, "the registry sent something that is no manifest", e))?;
    match looks {
        Looks { schema_version: 1, .. } => fail!(Unsupported, "a manifest of schema 1, which nobody writes since 2016"),
        Looks { media_type, .. } if !media_type.is_empty() => Ok(media_type),
        Looks { manifests: Some(_), .. } => Ok("application/vnd.oci.image.index.v1+json".into()),
        _ => Ok("application/vnd.oci.image.manifest.v1+json".into()),
    }
}

fn client(host: &Host) -> Result<oci_client::Client> {
    static PROVIDER: Once = Once::new();
    // The first one wins; a second would be the same.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut authorities = Vec::new();
    for path in &host.authorities {
        authorities.push(Certificate { encoding: CertificateEncoding::Pem, data: hosts::read(path)? });
    }
    let config = ClientConfig {
        protocol: if host.tls { ClientProtocol::Https } else { ClientProtocol::Http },
        accept_invalid_certificates: !host.verify,
        extra_root_certificates: authorities,
        use_monolithic_push: true,
        connect_timeout: Some(Duration::from_secs(30)),
        user_agent: concat!("ctrfs/", env!("CARGO_PKG_VERSION")),
        ..Default::default()
    };
    oci_client::Client::try_from(config).map_err(|e| told(&host.address, e))
}
