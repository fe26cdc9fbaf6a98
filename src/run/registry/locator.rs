//! A reference as `ctr` reads it: a host, a repository, and a tag or a digest. Nothing is guessed: no `docker.io`, no
//! `library/`, no `latest`.

use crate::containerd::Digest;
use crate::error::Result;
use crate::fail;

/// Where an image is in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// `docker.io`, `localhost:5000`
    pub host: String,
    /// `library/busybox`
    pub repository: String,
    /// `1.36`; empty where there is only a digest.
    pub tag: String,
    pub digest: Option<Digest>,
}

impl Locator {
    /// The parts of a full reference.
    pub fn parse(reference: &str) -> Result<Locator> {
        let Some((host, path)) = reference.split_once('/') else {
            return fail!(
                Invalid,
                "{reference:?} is no full reference: there is no host in it, as in docker.io/library/busybox:1"
            );
        };
        let at = path.find([':', '@']).unwrap_or(path.len());
        let (repository, object) = path.split_at(at);
        let (tag, digest) = object.split_once('@').map_or((object, None), |(tag, digest)| (tag, Some(digest)));
        let tag = tag.trim_start_matches(':');
        let strange = |text: &str| text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#\\%".contains(c));
        if host.is_empty()
            || strange(reference)
            || host.contains('@')
            || !is_repository(repository)
            || tag.contains(':')
        {
            return fail!(Invalid, "{reference:?} is no reference to an image in a registry");
        }
        let digest = match digest.map(Digest::parse) {
            Some(None) => return fail!(Invalid, "{reference:?}: what stands behind the @ is no digest"),
            digest => digest.flatten(),
        };
        if tag.is_empty() && digest.is_none() {
            return fail!(
                Invalid,
                "{reference:?} has neither a tag nor a digest; write it out, as in {reference}:latest"
            );
        }
        Ok(Locator { host: host.into(), repository: repository.into(), tag: tag.into(), digest })
    }

    /// The host without its port, as the labels that tell an image's source have it.
    pub fn hostname(&self) -> &str {
        self.host.rsplit_once(':').map_or(&self.host, |(name, _)| name)
    }
}

/// No empty component, and none that a server or a proxy would take for a way up.
fn is_repository(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Whether the host is this machine by its name.
pub fn is_local(host: &str) -> bool {
    let name = host
        .strip_prefix('[')
        .map_or_else(|| host.split(':').next().unwrap_or(host), |v6| v6.split(']').next().unwrap_or(v6));
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_host_a_repository_and_a_tag_or_a_digest() {
        let hex = "a".repeat(64);
        let digest = format!("sha256:{hex}");
        let parse =
            |text: &str| Locator::parse(text).map(|l| (l.host, l.repository, l.tag, l.digest.map(|d| d.to_string())));
        let is = |host: &str, repository: &str, tag: &str, digest: Option<&str>| {
            (host.to_owned(), repository.to_owned(), tag.to_owned(), digest.map(str::to_owned))
        };
        assert_eq!(parse("docker.io/library/a:1").unwrap(), is("docker.io", "library/a", "1", None));
        assert_eq!(parse("localhost:5000/a:1").unwrap(), is("localhost:5000", "a", "1", None));
        assert_eq!(parse(&format!("h/a@{digest}")).unwrap(), is("h", "a", "", Some(&digest)));
        assert_eq!(parse(&format!("h/a:1@{digest}")).unwrap(), is("h", "a", "1", Some(&digest)));
        assert_eq!(Locator::parse("localhost:5000/a:1").unwrap().hostname(), "localhost");
        for bad in [
            "",
            "a",
            "busybox:1",
            "h/a",
            "h/",
            "h/:1",
            "/a:1",
            "h/../a:1",
            "h/a//b:1",
            "h/a@sha256:1",
            "h/a b:1",
            "h/a:1:2",
            "u@h/a:1",
            "h/a%2f:1",
        ] {
            assert!(Locator::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn this_machine_has_several_names() {
        assert!(
            is_local("localhost:5000") && is_local("127.0.0.1:5000") && is_local("[::1]:5000") && is_local("127.1.2.3")
        );
        assert!(!is_local("localhost.example:5000") && !is_local("docker.io") && !is_local("10.0.0.1"));
    }
}
