//! How a registry is reached, as commands say it.

use crate::error::Result;
use crate::fail;
use std::path::PathBuf;

/// A password, which is not shown.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"***\"")
    }
}

/// How a registry is reached: the flags that all commands with a registry have.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegistryArgs {
    /// Take any certificate
    #[arg(short = 'k', long)]
    pub skip_verify: bool,
    /// Speak HTTP without TLS
    #[arg(long)]
    pub plain_http: bool,
    /// Who asks; better in a file
    #[arg(short = 'u', long, value_name = "USER:PASSWORD")]
    pub user: Option<Secret>,
    /// A file with USER:PASSWORD in it
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub user_file: Option<PathBuf>,
    /// Directory with a hosts.toml for each host
    #[arg(long, value_name = "DIR")]
    pub hosts_dir: Option<PathBuf>,
    /// Certificate of an authority, in PEM
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    #[arg(long, hide = true)]
    refresh: Option<Secret>,
    #[arg(long, hide = true)]
    tlscert: Option<String>,
    #[arg(long, hide = true)]
    tlskey: Option<String>,
    #[arg(long, hide = true)]
    http_dump: bool,
    #[arg(long, hide = true)]
    http_trace: bool,
}

/// What to do where a registry wants to see a certificate.
const CERTIFICATE: &str = "let skopeo copy the image, with --src-cert-dir, to an archive, and import that";

impl RegistryArgs {
    /// Refuses by its name what `ctr` has and ctrfs has not.
    pub fn check(&self) -> Result<()> {
        let given = [
            (self.refresh.is_some(), "--refresh", "give the user and a password or access token by --user-file"),
            (self.tlscert.is_some(), "--tlscert", CERTIFICATE),
            (self.tlskey.is_some(), "--tlskey", CERTIFICATE),
            (self.http_dump, "--http-dump", "start ctrfs with --debug"),
            (self.http_trace, "--http-trace", "start ctrfs with --debug"),
        ];
        match given.iter().find(|(given, ..)| *given) {
            Some((_, flag, remedy)) => fail!(Unsupported, "{flag} is not supported; {remedy}"),
            None => Ok(()),
        }
    }
}
