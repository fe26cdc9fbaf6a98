//! The OCI runtime spec that containerd's own client starts from.

use serde_json::Value;

/// `ctr oci spec` of containerd 2.1 (`pkg/oci/spec.go`, `populateDefaultUnixSpec`).
const DEFAULT: &str = include_str!("default.json");

/// Masked since 1.7 only.
const POWERCAP: &str = "/sys/devices/virtual/powercap";

/// The default spec, as the `ctr` of this version of the server prints it.
pub fn default(version: &str) -> serde_json::Result<Value> {
    let mut spec: Value = serde_json::from_str(DEFAULT)?;
    let numbers: Vec<u32> =
        version.trim_start_matches('v').split(['.', '~', '+', '-']).map_while(|number| number.parse().ok()).collect();
    let old = matches!(numbers[..], [1, ..=6, ..]);
    let oci = match numbers[..] {
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
