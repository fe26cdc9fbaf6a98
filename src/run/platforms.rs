//! Which platforms a command is about: as `ctr` reads `--platform`, and what it takes without one.

use crate::containerd::{Client, Descriptor, Platform};
use crate::error::Result;
use crate::fail;

/// The platforms that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// These and no others.
    Exactly(Vec<Platform>),
    /// Whatever this machine runs: its own, and what it runs besides.
    Runnable(Platform),
}

impl Wanted {
    /// What the flags say; without them it is this machine's platform.
    pub fn new(platforms: &[String], all: bool) -> Result<Wanted> {
        if all {
            return match platforms {
                [] => Ok(Wanted::All),
                _ => fail!(Invalid, "--platform and --all-platforms do not go together"),
            };
        }
        match platforms {
            [] => Ok(Wanted::Exactly(vec![Platform::host()])),
            some => Ok(Wanted::Exactly(some.iter().map(|p| parse(p)).collect::<Result<_>>()?)),
        }
    }

    /// Whether a manifest of this platform is wanted; one that says none is.
    pub fn takes(&self, platform: Option<&Platform>) -> bool {
        let Some(platform) = platform else { return true };
        match self {
            Wanted::All => true,
            Wanted::Exactly(list) => list.iter().any(|wanted| is_same(wanted, platform)),
            Wanted::Runnable(host) => platform.rank(host).is_some(),
        }
    }

    /// Of manifests with their platforms, those that are unpacked: for each wanted platform the best.
    pub fn best<'a>(&self, manifests: &'a [Descriptor]) -> Vec<&'a Descriptor> {
        let best = |rank: &dyn Fn(&Platform) -> Option<usize>| {
            let ranked = manifests.iter().enumerate().filter(|(_, m)| !m.is_attestation());
            let ranked =
                ranked.filter_map(|(i, m)| Some((m.platform.as_deref().map_or(Some(usize::MAX), rank)?, i, m)));
            ranked.min_by_key(|(rank, i, _)| (*rank, *i)).map(|(.., m)| m)
        };
        match self {
            Wanted::All => manifests.iter().filter(|m| !m.is_attestation()).collect(),
            Wanted::Exactly(list) => {
                let each = |wanted: &Platform| best(&|p: &Platform| is_same(wanted, p).then_some(0));
                list.iter().filter_map(each).collect()
            }
            Wanted::Runnable(host) => best(&|p: &Platform| p.rank(host)).into_iter().collect(),
        }
    }

    /// Their names, for people.
    pub fn names(&self) -> String {
        match self {
            Wanted::All => "any platform".into(),
            Wanted::Exactly(list) => list.iter().map(Platform::name).collect::<Vec<_>>().join(", "),
            Wanted::Runnable(host) => host.name(),
        }
    }
}

fn is_same(a: &Platform, b: &Platform) -> bool {
    let (a, b) = (a.normal(), b.normal());
    a.os == b.os && a.architecture == b.architecture && a.variant == b.variant
}

/// `linux/arm64/v8`, `arm64`, `linux`: what is left out is this machine's (containerd's `platforms.Parse`).
pub fn parse(text: &str) -> Result<Platform> {
    const SYSTEMS: [&str; 8] = ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "macos"];
    let parts: Vec<&str> = text.split('/').collect();
    let is_part = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    if parts.len() > 3 || !parts.iter().all(is_part) {
        return fail!(Invalid, "{text:?} is no platform; one is written linux/amd64 or linux/arm/v7");
    }
    let host = Platform::host();
    let (os, architecture, variant) = match parts[..] {
        [os] if SYSTEMS.contains(&os.to_lowercase().as_str()) => {
            (os, host.architecture.as_str(), host.variant.as_str())
        }
        [architecture] => (host.os.as_str(), architecture, ""),
        [os, architecture] => (os, architecture, ""),
        [os, architecture, variant] => (os, architecture, variant),
        _ => return fail!(Invalid, "{text:?} is no platform"),
    };
    let platform =
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.into(), ..Default::default() };
    Ok(platform.normal())
}

/// Whether the server is of containerd 2.0 or later: `ctr` then does some things in another way.
pub fn is_modern(client: &Client) -> Result<bool> {
    let version = client.server()?.version.clone();
    let first = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse::<u32>().ok());
    Ok(first.is_none_or(|major| major >= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_as_ctr_reads_it() {
        let host = Platform::host();
        assert_eq!(parse("linux/arm64/v8").unwrap().name(), "linux/arm64");
        assert_eq!(parse("arm64").unwrap().name(), format!("{}/arm64", host.os));
        assert_eq!(parse("windows").unwrap().name(), format!("windows/{}", host.architecture));
        assert_eq!(parse("linux/arm").unwrap().name(), "linux/arm/v7");
        for bad in ["", "/", "a/b/c/d", "linux/*", "linux/ amd64"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wanted_is_taken() {
        let platform = |text: &str| Some(parse(text).unwrap());
        let takes = |wanted: &Wanted, text: &str| wanted.takes(platform(text).as_ref());
        let runnable = Wanted::Runnable(parse("linux/amd64").unwrap());
        assert!(takes(&runnable, "linux/386") && !takes(&runnable, "linux/arm64") && runnable.takes(None));
        let exactly = Wanted::new(&["linux/amd64".into(), "linux/arm/v6".into()], false).unwrap();
        assert!(takes(&exactly, "linux/arm/v6") && !takes(&exactly, "linux/386") && !takes(&exactly, "linux/arm"));
        assert!(Wanted::new(&["linux".into()], true).is_err());
    }
}
