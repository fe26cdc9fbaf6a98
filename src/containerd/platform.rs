//! Platforms: their normal form, the host's, and which of several the host takes first, as containerd decides it.

use super::Platform;

impl Platform {
    /// `linux/arm64/v8`, as `ctr` prints it.
    pub fn name(&self) -> String {
        let parts = [&self.os, &self.architecture, &self.variant];
        let parts: Vec<&str> = parts.iter().map(|p| p.as_str()).filter(|p| !p.is_empty()).collect();
        parts.join("/")
    }

    /// `linux/arm64/v8`, `linux/amd64` or `arm64`, as containerd reads them.
    pub fn parse(text: &str) -> Option<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let host = Platform::host();
        let known = |os: &str| ["linux", "windows", "darwin", "freebsd"].contains(&os);
        let (os, architecture, variant) = match parts[..] {
            [os] if known(os) => (os, host.architecture.as_str(), host.variant.as_str()),
            [architecture] => (host.os.as_str(), architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return None,
        };
        let (os, architecture, variant) = (os.into(), architecture.into(), variant.into());
        let platform = Platform { os, architecture, variant, os_version: String::new() }.normal();
        (!platform.os.is_empty() && !platform.architecture.is_empty()).then_some(platform)
    }

    /// Whether it says nothing: a descriptor with an empty platform means none.
    pub fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// As attestations have it.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// The form in which platforms are compared: containerd's `Normalize`.
    pub fn normal(&self) -> Platform {
        let os = match self.os.to_lowercase() {
            os if os == "macos" => "darwin".into(),
            os => os,
        };
        let (architecture, variant) =
            normal_architecture(&self.architecture.to_lowercase(), &self.variant.to_lowercase());
        Platform { os, architecture, variant, os_version: self.os_version.clone() }
    }

    /// This machine's.
    pub fn host() -> Platform {
        let architecture = std::env::consts::ARCH;
        let variant = if architecture == "arm" { "v7" } else { "" };
        let platform = Platform {
            os: std::env::consts::OS.into(),
            architecture: architecture.into(),
            variant: variant.into(),
            os_version: String::new(),
        };
        platform.normal()
    }

    /// How well `self` suits a machine of `host`: 0 is best, none is not at all.
    pub fn rank(&self, host: &Platform) -> Option<usize> {
        let platform = self.normal();
        suitable(&host.normal()).iter().position(|p| {
            p.os == platform.os && p.architecture == platform.architecture && p.variant == platform.variant
        })
    }
}

fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le", variant) => ("ppc64le", variant),
        other => other,
    };
    (architecture.into(), variant.into())
}

/// What a machine runs, best first: containerd's platform vector.
fn suitable(host: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: &str| Platform {
        os: host.os.clone(),
        architecture: architecture.into(),
        variant: variant.into(),
        os_version: String::new(),
    };
    let older = |from: &str, least: u32| -> Vec<Platform> {
        let newest = from.trim_start_matches('v').parse::<u32>().unwrap_or(0);
        (least..newest).rev().map(|v| with(&host.architecture, &format!("v{v}"))).collect()
    };
    let mut all = vec![with(&host.architecture, &host.variant)];
    match host.architecture.as_str() {
        "amd64" => {
            all.extend(older(&host.variant, 2));
            if !host.variant.is_empty() {
                all.push(with("amd64", ""));
            }
            all.push(with("386", ""));
        }
        "arm" => all.extend(older(&host.variant, 5)),
        "arm64" => {
            if !host.variant.is_empty() {
                all.extend(older(&host.variant, 9));
                all.push(with("arm64", ""));
            }
            all.extend([8, 7, 6, 5].map(|v| with("arm", &format!("v{v}"))));
        }
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(String::from);
        let mut next = || parts.next().unwrap_or_default();
        Platform { os: next(), architecture: next(), variant: next(), os_version: String::new() }
    }

    #[test]
    fn platforms_are_compared_in_their_normal_form() {
        for (from, to) in [
            ("linux/aarch64/v8", "linux/arm64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/s390x", "linux/s390x"),
        ] {
            assert_eq!(platform(from).normal().name(), to);
        }
    }

    #[test]
    fn a_machine_takes_its_own_before_what_it_also_runs() {
        let rank = |p: &str, host: &str| platform(p).rank(&platform(host));
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(rank("linux/386", "linux/amd64"), Some(1));
        assert_eq!(rank("linux/arm64/v8", "linux/amd64"), None);
        assert!(rank("linux/arm64", "linux/arm64") < rank("linux/arm/v7", "linux/arm64"));
        assert_eq!(rank("linux/arm/v5", "linux/arm/v7"), Some(2));
        assert_eq!(rank("linux/arm/v8", "linux/arm/v7"), None);
        assert_eq!(rank("windows/amd64", "linux/amd64"), None);
    }
}
