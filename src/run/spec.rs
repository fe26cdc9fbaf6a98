//! The OCI runtime spec of a container, equal to what containerd's own client would make of the same command.
//!
//! [`default`] is where it starts from; [`flags`] are the words of a command, [`build`] applies them in `ctr`'s order.

pub mod build;
mod capability;
mod device;
pub mod edit;
pub mod flags;
mod seccomp;
pub mod user;

use serde_json::Value;

/// `ctr oci spec` of containerd 2.1 (`pkg/oci/spec.go`, `populateDefaultUnixSpec`).
const DEFAULT: &str = include_str!("default.json");

/// Masked since 1.7 only.
const POWERCAP: &str = "/sys/devices/virtual/powercap";

/// Whose default spec and profile it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// 1.6 and older.
    V1_6,
    /// 1.7.
    V1_7,
    /// 2.0 and newer.
    V2,
}

impl Age {
    /// Of a version as the server tells it.
    pub fn of(version: &str) -> Age {
        match numbers(version)[..] {
            [1, ..=6, ..] => Age::V1_6,
            [1, ..] => Age::V1_7,
            _ => Age::V2,
        }
    }
}

fn numbers(version: &str) -> Vec<u32> {
    version.trim_start_matches('v').split(['.', '~', '+', '-']).map_while(|number| number.parse().ok()).collect()
}

/// The default spec, as the `ctr` of this version of the server prints it.
pub fn default(version: &str) -> serde_json::Result<Value> {
    let mut spec: Value = serde_json::from_str(DEFAULT)?;
    let old = Age::of(version) == Age::V1_6;
    let oci = match numbers(version)[..] {
        [1, ..=6, ..] => "1.0.2-dev",
        [1, ..] | [2, 0, ..] => "1.2.0",
        _ => "1.2.1",
    };
    spec["ociVersion"] = oci.into();
    if old && let Some(masked) = spec["linux"]["maskedPaths"].as_array_mut() {
        masked.retain(|path| path != POWERCAP);
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_is_that_of_the_server() {
        let masked = |version: &str| default(version).unwrap()["linux"]["maskedPaths"].to_string();
        assert!(!masked("1.6.20~ds1").contains(POWERCAP));
        assert!(masked("1.7.24").contains(POWERCAP));
        for (version, oci) in [("1.6.20~ds1", "1.0.2-dev"), ("v1.7.24", "1.2.0"), ("2.1.9+unknown", "1.2.1")] {
            assert_eq!(default(version).unwrap()["ociVersion"], oci, "{version}");
        }
    }
}
