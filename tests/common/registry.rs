//! A registry on this machine (Debian's `docker-registry`): with or without TLS, open or with a password.

use super::oci::Layout;
use super::shell;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

mod tokens;

/// Who may enter a closed registry.
pub const USER: &str = "me:s3cret";

/// How a registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// With a password.
    Closed,
    /// With a certificate of its own authority.
    Tls,
    /// That believes the tokens of a server, which gives them to who has the password.
    Token,
}

/// A running registry; gone when dropped.
pub struct Registry {
    pub kind: Kind,
    /// `127.0.0.1:<port>`
    pub host: String,
    pub dir: tempfile::TempDir,
    /// What the server of tokens was asked, and by whom.
    pub asked: Arc<Mutex<Vec<String>>>,
    child: Child,
}

impl Registry {
    /// Starts one that answers when this returns.
    pub fn start(kind: Kind) -> Registry {
        let dir = tempfile::Builder::new().prefix("ctrfs-registry-").tempdir().unwrap();
        let path = dir.path().display().to_string();
        let asked = Arc::default();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {path}/data}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: 127.0.0.1:0\n"
        );
        match kind {
            Kind::Plain => {}
            Kind::Closed => {
                let (user, password) = USER.split_once(':').unwrap();
                shell::sh(&format!("htpasswd -Bbc {path}/htpasswd {user} {password} 2>/dev/null"), &[], 20).ok();
                config += &format!("auth:\n  htpasswd: {{realm: test, path: {path}/htpasswd}}\n");
            }
            Kind::Token => {
                let realm = tokens::serve(&path, &asked);
                config += &format!(
                    "auth:\n  token: {{realm: {realm:?}, service: registry, issuer: ctrfs-tests, rootcertbundle: {path}/server.crt}}\n"
                );
            }
            Kind::Tls => {
                let made = shell::sh(&format!("{CERTIFICATE} 2>/dev/null"), &[("D", &path)], 20);
                assert_eq!(made.code, Some(0), "{made:?}");
                config += &format!("  tls: {{certificate: {path}/server.crt, key: {path}/server.key}}\n");
            }
        }
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &format!("{path}/config.yml")])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry is missing: run contrib/setup packages");
        let mut registry = Registry { kind, host: String::new(), dir, asked, child };
        let log = registry.dir.path().join("log");
        shell::eventually(
            &format!("the registry listens; its log is {}", log.display()),
            Duration::from_secs(20),
            || {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let at = said.split("listening on ").nth(1).and_then(|rest| rest.split(['"', ',', ' ', '\n']).next());
                registry.host = at.unwrap_or_default().to_owned();
                !registry.host.is_empty()
            },
        );
        registry
    }

    /// `127.0.0.1:<port>/<name>`
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Puts an image into it, byte for byte.
    #[track_caller]
    pub fn put(&self, layout: &Layout, target: &Value, name: &str) -> String {
        let work = tempfile::tempdir().unwrap();
        let tar = work.path().join("x.tar");
        layout.save(target, "it", &tar);
        let reference = self.reference(name);
        let script = "mkdir $W/oci && tar -xf $W/x.tar -C $W/oci &&
            skopeo copy --quiet --all --preserve-digests --dest-tls-verify=false $A oci:$W/oci:it docker://$R";
        let auth = if matches!(self.kind, Kind::Closed | Kind::Token) {
            format!("--dest-creds={USER}")
        } else {
            String::new()
        };
        let variables = [("W", work.path().to_str().unwrap()), ("R", &reference), ("A", &auth)];
        let done = shell::sh(script, &variables, 60);
        assert_eq!(done.code, Some(0), "{done:?}");
        reference
    }

    /// The file of a blob in its store.
    pub fn blob(&self, hex: &str) -> PathBuf {
        let store = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        store.join(&hex[..2]).join(hex).join("data")
    }

    /// The same registry at another address, from where it sends so many bytes a second. For as long as the process lives.
    pub fn slow(&self, bytes_per_second: usize) -> String {
        self.through(bytes_per_second, usize::MAX)
    }

    /// The same, where each connection breaks after so many bytes.
    pub fn breaking(&self, longest: usize) -> String {
        self.through(100_000_000, longest)
    }

    fn through(&self, bytes_per_second: usize, longest: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = self.host.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&registry) else { continue };
                let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || carry(client, to_server, Duration::ZERO, usize::MAX));
                let pause = Duration::from_secs(1) * PIECE as u32 / bytes_per_second as u32;
                std::thread::spawn(move || carry(server, to_client, pause, longest));
            }
        });
        address
    }

    /// What it logged: every request.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> String {
        self.dir.path().join("ca.crt").to_str().unwrap().to_owned()
    }
}

const PIECE: usize = 16 << 10;

fn carry(mut from: TcpStream, mut to: TcpStream, pause: Duration, longest: usize) {
    let mut buffer = [0; PIECE];
    let mut carried = 0;
    while carried < longest
        && let Ok(count @ 1..) = from.read(&mut buffer)
    {
        carried += count;
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        std::thread::sleep(pause);
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate of it for this machine.
pub(super) const CERTIFICATE: &str = "cd $D && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority \
    -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt && \
    openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr && \
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' >ext && \
    openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out server.crt";
