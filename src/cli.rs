//! The command line.

use crate::error::Result;
use crate::fail;
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ABOUT: &str = "\
Mounts a containerd as a directory tree: namespaces, images, blobs, snapshots and containers are files, so that ls, cat, \
find, grep, jq and tar work on them. Reading never changes anything.";

const AFTER: &str = "\
Examples:
  ctrfs /run/ctr                                    mount everything
  ctrfs -n k8s.io /run/ctr                          one namespace
  ctrfs --root namespaces/default/images/docker.io/library/alpine:3.20 /mnt
                                                    one image, as any directory of the tree
  umount /run/ctr                                   the end of it; SIGTERM does the same

The mount belongs to who mounts: nobody else sees anything without -o allow_other.
$CONTAINERD_NAMESPACE is not looked at, on purpose: the tree shows all namespaces, and a variable that some shell
exported would hide all but one of them. Say -n to see one.

In the tree, README says more; `ctrfs --tree` prints the reference of every file.";

/// Arguments of `ctrfs`.
#[derive(Debug, Clone, Parser)]
#[command(name = "ctrfs", version, about = ABOUT, after_help = AFTER, max_term_width = 110)]
#[command(disable_version_flag = true)]
pub struct Arguments {
    /// An empty directory to mount on
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "tree")]
    pub mountpoint: Option<PathBuf>,

    /// containerd's socket [default: $CONTAINERD_ADDRESS, else, for who is not root, the one of a rootless containerd
    /// of theirs, else /run/containerd/containerd.sock]
    #[arg(short, long, value_name = "SOCKET")]
    pub address: Option<PathBuf>,

    /// Mount this directory of the tree instead of all of it
    #[arg(long, value_name = "PATH", conflicts_with = "namespace")]
    pub root: Option<String>,

    /// Mount one namespace: short for --root namespaces/NS
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,

    /// Options as of mount(8), separated by commas: ro, allow_other, allow_containers (with allow_other: others may
    /// look into containers and snapshots, too), allow_delete (rmdir, rm and mv delete and rename objects)
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,

    /// Where indexes of layers are kept [default: $XDG_CACHE_HOME/ctrfs, for root /var/cache/ctrfs]
    #[arg(long, value_name = "DIR", value_parser = whole_path())]
    pub cache_dir: Option<PathBuf>,

    /// Where the input and output of processes are that were started here [default: $XDG_STATE_HOME/ctrfs, for root
    /// /var/lib/ctrfs]
    #[arg(long, value_name = "DIR", value_parser = whole_path())]
    pub state_dir: Option<PathBuf>,

    /// How much content to keep in memory, in bytes or with K, M, G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub cache_size: u64,

    /// The longest that one request may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,

    /// The longest to wait for containerd where nothing can be mounted without it (--root, -n), in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub connect_timeout: Duration,

    /// Tell on standard error what is asked and what fails; stays in the foreground
    #[arg(long)]
    pub debug: bool,

    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,

    /// Print the reference of the tree, in Markdown
    #[arg(long, exclusive = true)]
    pub tree: bool,

    /// Print the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,
}

/// The mount options that mean something to ctrfs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    pub read_only: bool,
    pub allow_other: bool,
    pub allow_containers: bool,
    /// `rmdir`, `rm` and `mv` delete and rename objects.
    pub allow_delete: bool,
    /// Links of a root filesystem are rewritten so that they stay inside.
    pub symlinks_inside: bool,
}

/// Options that mount(8), fstab and systemd put there for themselves or that say what is so anyway.
const IGNORED: &[&str] = &[
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "nofail",
    "_netdev",
    "nosuid",
    "nodev",
    "exec",
    "noatime",
    "relatime",
    "default_permissions",
];

impl Options {
    /// Reads `-o`; an option that is not known is refused by name.
    pub fn parse(words: &[String]) -> Result<Options> {
        let mut options = Options::default();
        for word in words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
            match word {
                "ro" => options.read_only = true,
                "allow_other" => options.allow_other = true,
                "allow_containers" => options.allow_containers = true,
                "allow_delete" => options.allow_delete = true,
                "symlinks=inside" => options.symlinks_inside = true,
                _ if IGNORED.contains(&word) || word.starts_with("x-") => {}
                _ => {
                    let known = "ro, allow_other, allow_containers, allow_delete, symlinks=inside";
                    return fail!(Invalid, "-o {word}: no such option; there are {known}");
                }
            }
        }
        Ok(options)
    }
}

impl Arguments {
    /// The encoded path of the directory to mount, from the root of the tree.
    pub fn base(&self) -> String {
        match (&self.root, &self.namespace) {
            (Some(root), _) => root.trim_matches('/').to_owned(),
            (None, Some(namespace)) => format!("namespaces/{namespace}"),
            (None, None) => String::new(),
        }
    }

    /// The socket to talk to.
    pub fn socket(&self) -> Result<PathBuf> {
        let given = self.address.clone().or_else(|| std::env::var_os("CONTAINERD_ADDRESS").map(PathBuf::from));
        let Some(given) = given.filter(|path| !path.as_os_str().is_empty()) else { return Ok(default_socket()) };
        let text = given.to_string_lossy().into_owned();
        let path = match text.split_once("://") {
            Some(("unix", path)) => PathBuf::from(path),
            Some((scheme, _)) => {
                return fail!(
                    Invalid,
                    "--address {text}: containerd is reached by the path of its unix socket, not by {scheme}"
                );
            }
            None => given,
        };
        std::path::absolute(&path).map_err(|e| crate::error::Error::from(e).context(format!("--address {text}")))
    }

    /// Where indexes are kept.
    pub fn cache(&self) -> PathBuf {
        directory(self.cache_dir.as_ref(), "XDG_CACHE_HOME", ".cache", "/var/cache/ctrfs")
    }

    /// Where the files of processes are.
    pub fn state(&self) -> PathBuf {
        directory(self.state_dir.as_ref(), "XDG_STATE_HOME", ".local/state", "/var/lib/ctrfs")
    }
}

/// The directory that was given, else root's, else the user's own.
fn directory(given: Option<&PathBuf>, variable: &str, below_home: &str, roots: &str) -> PathBuf {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let own = || {
        let base = std::env::var_os(variable).map(PathBuf::from);
        base.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(below_home))).map(|base| base.join("ctrfs"))
    };
    match given {
        Some(given) => given.clone(),
        None if root => PathBuf::from(roots),
        None => own().unwrap_or_else(|| PathBuf::from(roots)),
    }
}

/// A path made whole where it is read: a daemon stands elsewhere, and so does containerd, which is told some.
fn whole_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

const SYSTEM_SOCKET: &str = "/run/containerd/containerd.sock";

/// containerd's own default, or the socket of a rootless one: the child of RootlessKit sees it under the same name in
/// its own mount namespace.
fn default_socket() -> PathBuf {
    let system = PathBuf::from(SYSTEM_SOCKET);
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return system;
    }
    let rootless = std::env::var_os("XDG_RUNTIME_DIR").and_then(|runtime| {
        let child = std::fs::read_to_string(Path::new(&runtime).join("containerd-rootless/child_pid")).ok()?;
        Some(PathBuf::from(format!("/proc/{}/root{SYSTEM_SOCKET}", child.trim())))
    });
    rootless.filter(|path| path.exists()).unwrap_or(system)
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds above 0".into()),
    }
}

fn size(text: &str) -> std::result::Result<u64, String> {
    let (digits, shift) = match text.chars().last() {
        Some('K' | 'k') => (&text[..text.len() - 1], 10),
        Some('M' | 'm') => (&text[..text.len() - 1], 20),
        Some('G' | 'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "a number of bytes, as 67108864 or 64M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_mount_and_others_are_refused_by_name() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let options = Options::parse(&words("ro,nofail,x-systemd.automount,allow_other")).unwrap();
        assert!(options.read_only && options.allow_other && !options.allow_containers);
        let error = Options::parse(&words("ro,alow_other")).unwrap_err();
        assert!(error.to_string().contains("alow_other"), "{error}");
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("17"), Ok(17));
        assert!(size("x").is_err() && size("").is_err() && size("99999999999G").is_err());
    }

    #[test]
    fn an_address_is_a_path() {
        let with = |address: &str| Arguments::parse_from(["ctrfs", "-a", address, "/mnt"]).socket();
        assert_eq!(with("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert!(with("tcp://127.0.0.1:1").unwrap_err().to_string().contains("tcp"));
    }
}
