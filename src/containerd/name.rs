//! The small values that records are made of: digests, labels, platforms, descriptors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The digest of a blob, `<algorithm>:<hex>`. A sha256 takes 32 bytes and no allocation: there can be 60,000 of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Sha256([u8; 32]),
    Other(Arc<str>),
}

impl Digest {
    /// The digest that `text` spells, if it is one as containerd defines them.
    pub fn parse(text: &str) -> Option<Digest> {
        let (algorithm, encoded) = text.split_once(':')?;
        let lower_hex =
            |n: usize| encoded.len() == n && encoded.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match algorithm {
            "sha256" => {
                let mut bytes = [0; 32];
                if !lower_hex(64) || hex::decode_to_slice(encoded, &mut bytes).is_err() {
                    return None;
                }
                Some(Digest(Repr::Sha256(bytes)))
            }
            "sha384" if lower_hex(96) => Some(Digest(Repr::Other(text.into()))),
            "sha512" if lower_hex(128) => Some(Digest(Repr::Other(text.into()))),
            _ => None,
        }
    }

    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest(Repr::Sha256(sha2::Sha256::digest(bytes).into()))
    }

    /// From the 32 bytes of a sha256.
    pub fn sha256(bytes: [u8; 32]) -> Digest {
        Digest(Repr::Sha256(bytes))
    }

    /// `sha256`, `sha512`, ….
    pub fn algorithm(&self) -> &str {
        match &self.0 {
            Repr::Sha256(_) => "sha256",
            Repr::Other(text) => text.split_once(':').map_or("", |(a, _)| a),
        }
    }

    /// What stands behind the colon.
    pub fn hex(&self) -> String {
        match &self.0 {
            Repr::Sha256(bytes) => hex::encode(bytes),
            Repr::Other(text) => text.split_once(':').map_or("", |(_, h)| h).to_string(),
        }
    }

    /// Whether `bytes` are those of this digest.
    pub fn verify(&self, bytes: &[u8]) -> bool {
        use sha2::Digest as _;
        match self.algorithm() {
            "sha256" => Digest::of(bytes) == *self,
            "sha384" => hex::encode(sha2::Sha384::digest(bytes)) == self.hex(),
            "sha512" => hex::encode(sha2::Sha512::digest(bytes)) == self.hex(),
            _ => false,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Sha256(bytes) => write!(f, "sha256:{}", hex::encode(bytes)),
            Repr::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(d)?;
        Digest::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no digest")))
    }
}

/// Labels or annotations, sorted by key, in one allocation: tens of thousands of sets are kept, and read seldom.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Labels(Option<Arc<[u8]>>);

impl Labels {
    /// The pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest: &[u8] = self.0.as_deref().unwrap_or_default();
        std::iter::from_fn(move || Some((take(&mut rest)?, take(&mut rest)?)))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Cuts one length-prefixed string off the head of `rest`.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*head) as usize)?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let mut bytes = Vec::with_capacity(pairs.iter().map(|(k, v)| k.as_ref().len() + v.as_ref().len() + 8).sum());
        for (key, value) in &pairs {
            for text in [key.as_ref(), value.as_ref()] {
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        Labels((!bytes.is_empty()).then(|| bytes.into()))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl serde::Serialize for Labels {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl<'de> serde::Deserialize<'de> for Labels {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Labels, D::Error> {
        Ok(Option::<Pairs>::deserialize(d)?.map(|pairs| pairs.0.into_iter().collect()).unwrap_or_default())
    }
}

/// The pairs of a map in a stranger's document, so many at most.
struct Pairs(Vec<(String, String)>);

const PAIRS: usize = 16 << 10;

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Pairs, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of text")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                    pairs.insert(key, value.unwrap_or_default());
                    if pairs.len() > PAIRS {
                        return Err(serde::de::Error::custom(format!("more than {PAIRS} pairs")));
                    }
                }
                Ok(Pairs(pairs.into_iter().collect()))
            }
        }
        d.deserialize_map(Visitor)
    }
}

/// A list in a stranger's document, of `N` at most; `null` is an empty one, as in Go.
#[derive(Debug)]
pub(super) struct Bounded<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Bounded(Vec::new())
    }
}

impl<'de, T: serde::Deserialize<'de>, const N: usize> serde::Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor<T, const N: usize>(std::marker::PhantomData<T>);
        impl<'de, T: serde::Deserialize<'de>, const N: usize> serde::de::Visitor<'de> for Visitor<T, N> {
            type Value = Bounded<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Bounded<T, N>, E> {
                Ok(Bounded::default())
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T, N>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if list.len() == N {
                        return Err(serde::de::Error::custom(format!("a list of more than {N}")));
                    }
                    list.push(item);
                }
                list.shrink_to_fit();
                Ok(Bounded(list))
            }
        }
        d.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

/// What a manifest was built for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Platform {
    #[serde(deserialize_with = "lenient")]
    pub architecture: String,
    #[serde(deserialize_with = "lenient")]
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub os_version: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub variant: String,
}

/// A descriptor: what a document says of a blob that it names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "lenient_arc")]
    pub media_type: Arc<str>,
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Arc<Platform>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<Arc<str>>,
}

/// A string that may be `null`, as Go reads it.
pub(super) fn lenient<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    use serde::Deserialize as _;
    Ok(Option::<String>::deserialize(d)?.unwrap_or_default())
}

fn lenient_arc<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Arc<str>, D::Error> {
    lenient(d).map(Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_spelled_as_it_was_parsed_and_nothing_else_is_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::parse(empty).unwrap();
        assert_eq!(digest.to_string(), empty);
        assert!(digest.verify(b"") && !digest.verify(b"x"));
        let long = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(Digest::parse(&long).unwrap().to_string(), long);
        for bad in ["", "sha256", "sha256:", "sha256:E3", &empty.to_uppercase(), &empty[..70], "md5:00", "sha256:../x"]
        {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn labels_keep_any_text_and_are_sorted() {
        let labels: Labels = [("b", "2\n=x\0"), ("a", "")].into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", ""), ("b", "2\n=x\0")]);
        assert_eq!(labels.get("a"), Some(""));
        assert!(!labels.is_empty() && Labels::default().is_empty());
        assert_eq!(serde_json::from_str::<Labels>("null").unwrap(), Labels::default());
    }
}
