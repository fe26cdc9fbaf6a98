//! The flags of `ctr run` and `ctr containers create`, under `ctr`'s names.

use crate::error::{Error, Kind, Result};
use crate::fail;
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;

/// What a container may use: of a new one, and of one that is there (`update`).
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// In bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory_limit: Option<i64>,
    #[arg(long)]
    pub cpus: Option<f64>,
    /// 1024 for `run`, none for `containers create`
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_shares: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Not ctr's, nerdctl's: how many processes there may be
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

impl LimitArgs {
    /// Refuses what contradicts itself.
    pub fn check(&self) -> Result<()> {
        if self.cpus.is_some_and(|cpus| cpus > 0.0) && (self.cpu_quota.is_some() || self.cpu_period.is_some()) {
            return fail!(Invalid, "--cpus and --cpu-quota or --cpu-period exclude each other");
        }
        Ok(())
    }

    /// As the `linux.resources` of a spec, with what was said and nothing else.
    pub fn resources(&self) -> Vec<(Vec<&'static str>, Value)> {
        let cpus = self.cpus.filter(|cpus| *cpus > 0.0);
        let quota = cpus.map(|cpus| (cpus * 100_000.0) as i64).or(self.cpu_quota);
        let period = cpus.map(|_| 100_000).or(self.cpu_period);
        let text = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).map(|text| json!(text));
        let given = [
            (vec!["memory", "limit"], self.memory_limit.map(|n| json!(n))),
            (vec!["cpu", "quota"], quota.map(|n| json!(n))),
            (vec!["cpu", "period"], period.map(|n| json!(n))),
            (vec!["cpu", "shares"], self.cpu_shares.filter(|shares| *shares > 0).map(|n| json!(n))),
            (vec!["cpu", "cpus"], text(&self.cpuset_cpus)),
            (vec!["cpu", "mems"], text(&self.cpuset_mems)),
            (vec!["pids", "limit"], self.pids_limit.map(|n| json!(n))),
        ];
        given.into_iter().filter_map(|(path, value)| Some((path, value?))).collect()
    }

    /// The same as `ctr` takes it for a new container: 0 is no limit of memory, and quota and period come together.
    pub fn of_new(&self) -> LimitArgs {
        let mut limits = self.clone();
        limits.memory_limit = limits.memory_limit.filter(|limit| *limit != 0);
        let (quota, period) = (limits.cpu_quota.unwrap_or(-1), limits.cpu_period.unwrap_or(0));
        let said = quota != -1 || period != 0;
        (limits.cpu_quota, limits.cpu_period) = (said.then_some(quota), said.then_some(period));
        limits
    }
}

/// What a container is to be: everything that goes into its record and its spec.
#[derive(Debug, Clone, Default, Args)]
pub struct CreateArgs {
    /// Specify the runtime
    #[arg(long, default_value = "io.containerd.runc.v2")]
    pub runtime: String,
    #[arg(long)]
    pub runtime_config_path: Option<String>,
    #[arg(long)]
    pub runc_binary: Option<String>,
    #[arg(long)]
    pub runc_root: Option<String>,
    #[arg(long)]
    pub runc_systemd_cgroup: bool,
    #[arg(long)]
    pub snapshotter: Option<String>,
    #[arg(long)]
    pub snapshotter_label: Vec<String>,
    #[arg(short, long)]
    pub config: Option<String>,
    #[arg(long)]
    pub cwd: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub env: Vec<String>,
    #[arg(long)]
    pub env_file: Option<String>,
    #[arg(long)]
    pub label: Vec<String>,
    #[arg(long)]
    pub annotation: Vec<String>,
    #[arg(long)]
    pub mount: Vec<String>,
    #[arg(long)]
    pub net_host: bool,
    #[arg(long)]
    pub privileged: bool,
    #[arg(long)]
    pub privileged_without_host_devices: bool,
    #[arg(long)]
    pub read_only: bool,
    #[arg(long)]
    pub sandbox: Option<String>,
    #[arg(short, long)]
    pub tty: bool,
    #[arg(long)]
    pub with_ns: Vec<String>,
    #[arg(long)]
    pub allow_new_privs: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[arg(long)]
    pub cap_add: Vec<String>,
    #[arg(long)]
    pub cap_drop: Vec<String>,
    #[arg(long)]
    pub seccomp: bool,
    #[arg(long)]
    pub seccomp_profile: Option<String>,
    #[arg(long)]
    pub apparmor_default_profile: Option<String>,
    #[arg(long)]
    pub apparmor_profile: Option<String>,
    #[arg(long)]
    pub rdt_class: Option<String>,
    #[arg(long)]
    pub hostname: Option<String>,
    #[arg(short, long)]
    pub user: Option<String>,
    #[arg(long)]
    pub rootfs: bool,
    #[arg(long)]
    pub rootfs_propagation: Option<String>,
    #[arg(long)]
    pub device: Vec<String>,
    #[arg(long)]
    pub cgroup: Option<String>,
    #[arg(long)]
    pub platform: Option<String>,
    #[arg(long)]
    pub uidmap: Vec<String>,
    #[arg(long)]
    pub gidmap: Vec<String>,
    #[arg(long)]
    pub remap_labels: bool,
    // Of no effect here, or refused by name.
    #[arg(long)]
    pub sync_fs: bool,
    #[arg(long)]
    pub cni: bool,
    #[arg(long)]
    pub gpus: Vec<String>,
    #[arg(long)]
    pub blockio_config_file: Option<String>,
    #[arg(long)]
    pub blockio_class: Option<String>,
    #[arg(long)]
    pub pid_file: Option<std::path::PathBuf>,
    #[arg(long)]
    pub no_pivot: bool,
}

impl CreateArgs {
    /// Refuses what cannot be had here, by its name, and what contradicts itself as `ctr` has it.
    pub fn check(&self) -> Result<()> {
        let refused = [
            ("--cni", self.cni, "set the network up beside it and join it with --with-ns network:PATH"),
            ("--gpus", !self.gpus.is_empty(), "pass the devices with --device"),
            ("--blockio-config-file", self.blockio_config_file.is_some(), "put linux.resources.blockIO into --config"),
            ("--blockio-class", self.blockio_class.is_some(), "put linux.resources.blockIO into --config"),
            ("--sync-fs", self.sync_fs, "unpack the image before, and run `sync`"),
        ];
        for (flag, given, remedy) in refused {
            if given {
                return fail!(Unsupported, "{flag} is not supported here; {remedy}");
            }
        }
        if (!self.uidmap.is_empty() || !self.gidmap.is_empty()) && !self.remap_labels {
            return fail!(
                Unsupported,
                "--uidmap and --gidmap are not supported without --remap-labels: ctr would copy the root file system"
            );
        }
        if self.uidmap.is_empty() != self.gidmap.is_empty() {
            return fail!(Invalid, "--uidmap and --gidmap go together");
        }
        if self.privileged_without_host_devices && !self.privileged {
            return fail!(Invalid, "--privileged-without-host-devices needs --privileged");
        }
        if self.seccomp_profile.is_some() && !self.seccomp {
            return fail!(Invalid, "--seccomp-profile needs --seccomp");
        }
        if self.apparmor_profile.is_some() && self.apparmor_default_profile.is_some() {
            return fail!(Invalid, "--apparmor-profile and --apparmor-default-profile exclude each other");
        }
        self.limits.of_new().check()?;
        let runc = self.runtime == "io.containerd.runc.v2";
        if !runc && (self.runc_binary.is_some() || self.runc_systemd_cgroup) {
            return fail!(Invalid, "--runc-binary and --runc-systemd-cgroup are for the runtime io.containerd.runc.v2");
        }
        if self.runc_systemd_cgroup && self.cgroup.as_ref().is_none_or(String::is_empty) {
            return fail!(Invalid, "--runc-systemd-cgroup needs --cgroup, as in machine.slice:foo:deadbeef");
        }
        Ok(())
    }
}

/// `key=value` words as labels; a word without a value is `true`, as `ctr` has it.
pub fn labels(words: &[String]) -> impl Iterator<Item = (String, String)> {
    words.iter().map(|word| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (word.clone(), "true".to_owned()),
    })
}

/// A file of the host that a flag names. It is read by this daemon, whose working directory says nothing.
pub fn host_file(flag: &str, path: &str, limit: u64) -> Result<Vec<u8>> {
    if !Path::new(path).is_absolute() {
        return fail!(Invalid, "{flag} {path}: say the whole path; ctrfs does not stand where you stand");
    }
    let problem = |e: std::io::Error| Error::from(e).context(format!("{flag} {path}"));
    let meta = std::fs::metadata(path).map_err(problem)?;
    if !meta.is_file() {
        return fail!(Invalid, "{flag} {path}: not a regular file");
    }
    if meta.len() > limit {
        return fail!(TooLong, "{flag} {path}: longer than {limit} bytes");
    }
    std::fs::read(path).map_err(problem)
}

/// Cuts a value that needs both parts in two.
pub fn pair<'a>(flag: &str, word: &'a str, between: char) -> Result<(&'a str, &'a str)> {
    word.split_once(between)
        .ok_or_else(|| Error::new(Kind::Invalid, format!("{flag} {word}: a {between} is missing in it")))
}
