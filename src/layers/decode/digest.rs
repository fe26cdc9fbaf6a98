//! Digests: `sha256:…` and `sha512:…`, parsed before anything is made of them (a path, for instance).

use crate::error::Result;
use crate::fail;
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;

/// A digest that names a blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// `sha256:` and 64 hexadecimal digits.
    Sha256([u8; 32]),
    /// `sha512:` and 128 hexadecimal digits.
    Sha512([u8; 64]),
}

impl Digest {
    /// The digest that `text` writes. Only lower case is a digest, as in the OCI specification.
    pub fn parse(text: &str) -> Result<Digest> {
        let bad = || fail!(Invalid, "{text:?} is no digest that ctrfs can check (sha256 or sha512)");
        let Some((algorithm, digits)) = text.split_once(':') else { return bad() };
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return bad();
        }
        let (mut short, mut long) = ([0; 32], [0; 64]);
        match algorithm {
            "sha256" if hex::decode_to_slice(digits, &mut short).is_ok() => Ok(Digest::Sha256(short)),
            "sha512" if hex::decode_to_slice(digits, &mut long).is_ok() => Ok(Digest::Sha512(long)),
            _ => bad(),
        }
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        }
    }

    /// The bytes of the digest.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes with the algorithm of the digest that the result is held against.
pub(super) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(super) fn like(digest: &Digest) -> Hasher {
        match digest {
            Digest::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Digest::Sha512(_) => Hasher::Sha512(Sha512::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_lower_case_digest_is_one() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        assert!(Digest::parse(&format!("sha512:{}", "0a".repeat(64))).is_ok());
        for bad in ["", "sha256:", "sha256:../../../etc/passwd", "md5:00", &good[1..], &good.to_uppercase()] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        assert!(Digest::parse(&format!("sha256:{}", "0A".repeat(32))).is_err());
    }
}
