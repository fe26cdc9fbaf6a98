//! Which endpoints stand for a registry: `hosts.toml` in a directory for its host, as containerd reads it, else the host
//! itself.

use super::RegistryArgs;
use super::locator::is_local;
use crate::error::{Error, Kind, Result};
use crate::fail;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The longest `hosts.toml` or certificate that is read.
const FILE_BYTES: u64 = 1 << 20;

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub tls: bool,
    /// Host and port, and a path before `/v2` if there is one.
    pub address: String,
    /// Stands before the repository's name: of a proxy that keeps a registry below a path of its own.
    pub prefix: String,
    pub verify: bool,
    /// Certificates of authorities, in PEM.
    pub authorities: Vec<PathBuf>,
    pub resolve: bool,
    pub pull: bool,
    pub push: bool,
}

#[derive(Deserialize, Default)]
struct HostsFile {
    #[serde(default)]
    server: String,
    #[serde(flatten)]
    root: HostTable,
    #[serde(default)]
    host: toml::Table,
}

#[derive(Deserialize, Default, Clone)]
struct HostTable {
    #[serde(default)]
    capabilities: Vec<String>,
    ca: Option<OneOrMany>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    client: Option<toml::Value>,
    header: Option<toml::Value>,
    dial_timeout: Option<toml::Value>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// The endpoints of `host`, in the order in which they are tried.
pub fn of(host: &str, args: &RegistryArgs) -> Result<Vec<Host>> {
    let mut hosts = match &args.hosts_dir {
        Some(root) => from_directory(root, host, args)?,
        None => itself(host, args),
    };
    for endpoint in &mut hosts {
        endpoint.authorities.extend(args.tlscacert.clone());
        endpoint.verify &= !args.skip_verify;
    }
    Ok(hosts)
}

/// A small file, whole.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let told = |e: std::io::Error| Error::from(e).context(path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(told)?.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
    match bytes.len() as u64 > FILE_BYTES {
        true => fail!(TooLong, "{}: more than 1 MiB", path.display()),
        false => Ok(bytes),
    }
}

fn plain(host: &str, tls: bool) -> Host {
    let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
    Host {
        tls,
        address: host.into(),
        prefix: String::new(),
        verify: true,
        authorities: Vec::new(),
        resolve: true,
        pull: true,
        push: true,
    }
}

/// The host without a word about it. Of this machine nobody expects a certificate: it is taken unverified, or without TLS
/// where the port does not say that there is some.
fn itself(host: &str, args: &RegistryArgs) -> Vec<Host> {
    if args.plain_http {
        return vec![plain(host, false)];
    }
    let port = host.rsplit_once(':').map(|(_, port)| port);
    if !is_local(host) {
        return vec![plain(host, true)];
    }
    let unverified = Host { verify: false, ..plain(host, true) };
    match port {
        None | Some("443") => vec![unverified],
        Some("80") => vec![plain(host, false)],
        Some(_) => vec![unverified, plain(host, false)],
    }
}

fn from_directory(root: &Path, host: &str, args: &RegistryArgs) -> Result<Vec<Host>> {
    // A host comes out of a reference, and a path is made of it.
    if host.contains(['/', '\0']) || host.starts_with('.') {
        return fail!(Invalid, "{host:?} is no host");
    }
    let with_port = host.rsplit_once(':').map(|(name, port)| format!("{name}_{port}_"));
    let names = with_port.into_iter().chain([host.to_owned(), "_default".to_owned()]);
    for directory in names.map(|name| root.join(name)) {
        let file = directory.join("hosts.toml");
        match read(&file) {
            Ok(bytes) => return parse(&bytes, &directory, host, args).map_err(|e| e.context(file.display())),
            Err(error) if error.kind() == Kind::NotFound && directory.is_dir() => {
                return docker_certificates(&directory, host, args);
            }
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(itself(host, args))
}

/// Docker's layout: a directory for a host with `*.crt` files of authorities in it.
fn docker_certificates(directory: &Path, host: &str, args: &RegistryArgs) -> Result<Vec<Host>> {
    let mut hosts = itself(host, args);
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => hosts.iter_mut().for_each(|host| {
                host.authorities.push(path.clone());
                host.verify = true;
            }),
            Some("cert" | "key") => {
                return fail!(
                    Unsupported,
                    "{}: client certificates are not supported; let skopeo copy the image to an archive, and import that",
                    path.display()
                );
            }
            _ => {}
        }
    }
    Ok(hosts)
}

fn parse(bytes: &[u8], directory: &Path, host: &str, args: &RegistryArgs) -> Result<Vec<Host>> {
    let bad = |e: toml::de::Error| Error::new(Kind::Invalid, e.message().to_owned());
    let file: HostsFile = toml::from_slice(bytes).map_err(bad)?;
    let mut hosts = Vec::new();
    for (url, table) in file.host {
        let table: HostTable = table.try_into().map_err(bad)?;
        hosts.push(endpoint(&url, table, directory)?);
    }
    match file.server.as_str() {
        "" => hosts.extend(itself(host, args)),
        server => hosts.push(endpoint(server, file.root, directory)?),
    }
    Ok(hosts)
}

fn endpoint(url: &str, table: HostTable, directory: &Path) -> Result<Host> {
    for (given, name) in [
        (table.client.is_some(), "client"),
        (table.header.is_some(), "header"),
        (table.dial_timeout.is_some(), "dial_timeout"),
    ] {
        if given {
            return fail!(
                Unsupported,
                "host {url}: {name} is not supported; take it out, or let skopeo fetch the image"
            );
        }
    }
    let (tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        None => (true, url),
        Some((scheme, _)) => return fail!(Invalid, "host {url}: {scheme} is no scheme of a registry"),
    };
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let (before, prefix) = split(path, table.override_path).ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            format!("host {url}: override_path with a path that has no /v2 in it is not supported"),
        )
    })?;
    let address = if before.is_empty() { address.to_owned() } else { format!("{address}/{before}") };
    let can =
        |what: &str| table.capabilities.is_empty() || table.capabilities.iter().any(|c| c.eq_ignore_ascii_case(what));
    if let Some(strange) =
        table.capabilities.iter().find(|c| !["pull", "resolve", "push"].contains(&c.to_lowercase().as_str()))
    {
        return fail!(Invalid, "host {url}: {strange:?} is no capability");
    }
    let authorities = match table.ca {
        None => Vec::new(),
        Some(OneOrMany::One(path)) => vec![directory.join(path)],
        Some(OneOrMany::Many(paths)) => paths.into_iter().map(|path| directory.join(path)).collect(),
    };
    Ok(Host {
        tls,
        address,
        prefix: prefix.to_owned(),
        verify: !table.skip_verify,
        authorities,
        resolve: can("resolve"),
        pull: can("pull"),
        push: can("push"),
    })
}

/// What of a path stands before `v2` and what behind it.
fn split(path: &str, is_whole: bool) -> Option<(&str, &str)> {
    if path == "v2" {
        return Some(("", ""));
    }
    if let Some(before) = path.strip_suffix("/v2") {
        return Some((before, ""));
    }
    if !is_whole {
        return Some((path, ""));
    }
    match path.strip_prefix("v2/") {
        Some(prefix) => Some(("", prefix)),
        None => path.split_once("/v2/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Host>> {
        parse(text.as_bytes(), Path::new("/certs"), "example.org", &RegistryArgs::default())
    }

    #[test]
    fn a_hosts_file_is_read_as_containerd_reads_it() {
        let hosts = parsed(
            "server = \"https://example.org\"\n[host.\"http://zz:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             [host.\"https://aa/proxy\"]\nskip_verify = true\nca = \"ca.pem\"\n",
        )
        .unwrap();
        let [first, second, third] = &hosts[..] else { panic!("{hosts:?}") };
        assert!(first.address == "zz:5000" && !first.tls && first.pull && first.resolve && !first.push);
        assert!(second.address == "aa/proxy" && second.tls && !second.verify && second.push);
        assert_eq!(second.authorities, [PathBuf::from("/certs/ca.pem")]);
        assert!(third.address == "example.org" && third.tls && third.verify);
        assert_eq!(parsed("").unwrap().len(), 1);
    }

    #[test]
    fn a_path_of_its_own_is_a_prefix_of_the_repository() {
        let hosts = parsed("[host.\"https://h/v2/proxy\"]\noverride_path = true\n").unwrap();
        assert_eq!((hosts[0].address.as_str(), hosts[0].prefix.as_str()), ("h", "proxy"));
        assert_eq!(parsed("[host.\"https://h/api\"]\noverride_path = true\n").unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(parsed("[host.\"https://h\"]\nclient = \"x\"\n").unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(parsed("[host.\"https://h\"]\ncapabilities = [\"fly\"]\n").unwrap_err().kind(), Kind::Invalid);
        assert_eq!(parsed("server = [").unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn this_machine_needs_no_certificate() {
        let args = RegistryArgs::default();
        let ways = |host: &str| itself(host, &args).iter().map(|h| (h.tls, h.verify)).collect::<Vec<_>>();
        assert_eq!(ways("localhost:5000"), [(true, false), (false, true)]);
        assert_eq!(ways("localhost"), [(true, false)]);
        assert_eq!(ways("example.org:5000"), [(true, true)]);
        assert_eq!(itself("docker.io", &args)[0].address, "registry-1.docker.io");
    }
}
