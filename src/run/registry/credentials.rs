//! Who asks: from the command, from a file, from where `docker login` and `podman login` leave it, or from a helper.

use super::{RegistryArgs, hosts};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a helper may think: some ask a server.
const HELPER: Duration = Duration::from_secs(60);

/// The longest answer of a helper.
const ANSWER_BYTES: u64 = 64 << 10;

/// Docker's configuration, the parts about registries.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What to say to the registry `host`.
pub fn of(host: &str, args: &RegistryArgs) -> Result<RegistryAuth> {
    if let Some(user) = &args.user {
        return pair(user.reveal(), "--user");
    }
    if let Some(file) = &args.user_file {
        let bytes = hosts::read(file)?;
        return pair(String::from_utf8_lossy(&bytes).trim_end(), &file.display().to_string());
    }
    match config_file() {
        Some(path) => match hosts::read(&path) {
            Ok(bytes) => from_config(host, &bytes).map_err(|e| e.context(path.display())),
            Err(error) if error.kind() == Kind::NotFound => Ok(RegistryAuth::Anonymous),
            Err(error) => Err(error),
        },
        None => Ok(RegistryAuth::Anonymous),
    }
}

fn pair(text: &str, origin: &str) -> Result<RegistryAuth> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok(RegistryAuth::Basic(user.into(), password.into())),
        _ => fail!(Invalid, "{origin}: not USER:PASSWORD; there is nobody to ask for a password here"),
    }
}

fn config_file() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("REGISTRY_AUTH_FILE")
        .or_else(|| of("DOCKER_CONFIG").map(|directory| directory.join("config.json")))
        .or_else(|| of("HOME").map(|home| home.join(".docker/config.json")))
}

/// The names that an entry for `host` may have.
fn names(host: &str) -> Vec<String> {
    let hosts: &[&str] = match host {
        "docker.io" | "registry-1.docker.io" | "index.docker.io" => {
            &["index.docker.io", "docker.io", "registry-1.docker.io"]
        }
        _ => &[host],
    };
    let forms = |host: &&str| {
        ["https://{}/v1/", "{}", "https://{}", "http://{}", "https://{}/v2/", "https://{}/"]
            .map(|form| form.replace("{}", host))
    };
    hosts.iter().flat_map(forms).collect()
}

fn from_config(host: &str, bytes: &[u8]) -> Result<RegistryAuth> {
    let config: Config = serde_json::from_slice(bytes).map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
    let names = names(host);
    if let Some((name, helper)) = names.iter().find_map(|name| Some((name, config.cred_helpers.get(name)?))) {
        return Ok(helped(helper, name)?.unwrap_or(RegistryAuth::Anonymous));
    }
    if let Some(entry) = names.iter().find_map(|name| config.auths.get(name))
        && let Some(auth) = from_entry(entry)?
    {
        return Ok(auth);
    }
    if config.creds_store.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    // As `docker login` files it: Docker's own under its old address, any other under its host.
    let filed = if names.first().is_some_and(|name| name == "https://index.docker.io/v1/") { 0..1 } else { 1..3 };
    for name in names.get(filed).unwrap_or_default() {
        if let Some(auth) = helped(&config.creds_store, name)? {
            return Ok(auth);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

fn from_entry(entry: &Entry) -> Result<Option<RegistryAuth>> {
    if !entry.registrytoken.is_empty() {
        return Ok(Some(RegistryAuth::Bearer(entry.registrytoken.clone())));
    }
    if !entry.identitytoken.is_empty() {
        return fail!(Unsupported, "identity tokens are not supported; log in with a user and a password");
    }
    if !entry.auth.is_empty() {
        let bad = || Error::new(Kind::Invalid, "an auth that is not base64 of USER:PASSWORD");
        let bytes = base64::engine::general_purpose::STANDARD.decode(entry.auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        return pair(text.trim_end_matches('\0'), "auth").map(Some);
    }
    let has = !entry.username.is_empty();
    Ok(has.then(|| RegistryAuth::Basic(entry.username.clone(), entry.password.clone())))
}

/// Asks `docker-credential-<helper>`. None if it knows nothing of the registry.
fn helped(helper: &str, registry: &str) -> Result<Option<RegistryAuth>> {
    if helper.is_empty() || helper.contains(['/', '\0']) {
        return fail!(Invalid, "{helper:?} is no name of a credential helper");
    }
    let program = format!("docker-credential-{helper}");
    let told = |e: std::io::Error| Error::from(e).context(&program);
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(told)?;
    // Closed at once: that is the end of the question.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(registry.as_bytes()).map_err(told)?;
    }
    let output = child.stdout.take();
    let reader = std::thread::Builder::new().name("ctrfs-helper".into()).spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.map(|pipe| pipe.take(ANSWER_BYTES).read_to_end(&mut bytes));
        bytes
    })?;
    let end = Instant::now() + HELPER;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(told)? {
            break status;
        }
        let cancelled = wait::check();
        if cancelled.is_err() || Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            cancelled?;
            return fail!(Deadline, "{program}: no answer in {} seconds", HELPER.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let bytes = reader.join().unwrap_or_default();
    if !status.success() {
        let said = String::from_utf8_lossy(&bytes);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return fail!(Access, "{program}: {}", said.trim());
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
        return fail!(Invalid, "{program}: its answer has no user and no secret");
    };
    match answer.username.as_str() {
        "<token>" => {
            fail!(Unsupported, "{program}: identity tokens are not supported; log in with a user and an access token")
        }
        "" => Ok(None),
        _ => Ok(Some(RegistryAuth::Basic(answer.username, answer.secret))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.into(), password.into())
    }

    #[test]
    fn what_docker_login_leaves_is_found() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6czpw"}, "h:5000": {"username": "u", "password": "p"},
            "t": {"registrytoken": "T"}, "i": {"identitytoken": "I"}, "empty": {}}}"#;
        assert_eq!(from_config("docker.io", config).unwrap(), basic("me", "s:p"));
        assert_eq!(from_config("h:5000", config).unwrap(), basic("u", "p"));
        assert_eq!(from_config("t", config).unwrap(), RegistryAuth::Bearer("T".into()));
        assert_eq!(from_config("i", config).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(from_config("empty", config).unwrap(), RegistryAuth::Anonymous);
        assert_eq!(from_config("other", config).unwrap(), RegistryAuth::Anonymous);
        assert_eq!(from_config("x", b"{").unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_user_has_a_password() {
        assert_eq!(pair("u:p:q", "x").unwrap(), basic("u", "p:q"));
        assert!(pair("u", "x").is_err() && pair(":p", "x").is_err());
    }
}
