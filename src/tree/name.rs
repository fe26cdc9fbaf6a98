//! Names in the tree: one codec, both ways (DESIGN 2.5).
//!
//! A component is the name itself, as far as a file may be called so; what may not is percent-encoded, and what is too
//! long becomes a hash. Exactly one spelling leads to a name: any other is no entry.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The longest name of a directory entry, in bytes (NAME_MAX).
const LONGEST: usize = 255;

/// What a component stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// This name.
    Name(String),
    /// The name whose encoding is too long and whose component this is: it has to be searched.
    Hashed,
}

/// The component that stands for `name`.
pub fn encode(name: &str) -> String {
    bounded(name, escape(name, |c| c == '/'))
}

/// The name that a component stands for, `None` if no name is spelled so.
pub fn decode(component: &str) -> Option<Decoded> {
    if is_hash(component) {
        return Some(Decoded::Hashed);
    }
    let name = unescape(component)?;
    (encode(&name) == component).then_some(Decoded::Name(name))
}

/// The one component that stands for a whole image reference, without a colon: tools that split at colons take it.
pub fn alias(reference: &str) -> String {
    bounded(reference, escape(reference, |c| c == '/' || c == ':'))
}

/// The reference that an alias stands for.
pub fn unalias(component: &str) -> Option<Decoded> {
    if is_hash(component) {
        return Some(Decoded::Hashed);
    }
    let reference = unescape(component)?;
    (alias(&reference) == component).then_some(Decoded::Name(reference))
}

/// The path of a reference below `images/`: split at `/` and at nothing else.
pub fn path(reference: &str) -> String {
    reference.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// The record whose name a component stands for.
pub fn find<'a, R>(records: &'a BTreeMap<Arc<str>, R>, component: &str) -> Option<&'a R> {
    match decode(component)? {
        Decoded::Name(name) => records.get(name.as_str()),
        Decoded::Hashed => records.iter().find(|(name, _)| encode(name) == component).map(|(_, record)| record),
    }
}

/// A path of the tree out of plain names.
pub fn join<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(encode).collect::<Vec<_>>().join("/")
}

fn escape(name: &str, more: fn(char) -> bool) -> String {
    match name {
        "" => return "%".into(),
        "." => return "%2E".into(),
        ".." => return "%2E%2E".into(),
        _ => {}
    }
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_control() || c == '%' || more(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn unescape(component: &str) -> Option<String> {
    if component == "%" {
        return Some(String::new());
    }
    let mut out = Vec::with_capacity(component.len());
    let mut rest = component.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        if *byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

fn bounded(name: &str, encoded: String) -> String {
    if encoded.len() <= LONGEST { encoded } else { format!("%h{}", hex::encode(Sha256::digest(name))) }
}

fn is_hash(component: &str) -> bool {
    component.strip_prefix("%h").is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_design_are_spelled_as_it_says() {
        assert_eq!(encode("alpine:3.20"), "alpine:3.20");
        assert_eq!(encode(""), "%");
        assert_eq!(encode(".."), "%2E%2E");
        assert_eq!(encode("a/b%\n"), "a%2Fb%25%0A");
        assert_eq!(alias("docker.io/library/nginx:1.27"), "docker.io%2Flibrary%2Fnginx%3A1.27");
        assert_eq!(path("a//b"), "a/%/b");
        assert!(encode(&"x".repeat(256)).starts_with("%h"));
        assert_eq!(encode(&"x".repeat(255)).len(), 255);
    }

    #[test]
    fn any_other_spelling_is_no_name() {
        for wrong in ["%2f", "%41", "%", "a%", "%zz", "a/b", "..", ".", "", "%25h"] {
            let decoded = decode(wrong);
            assert!(decoded.is_none() || encode(&name(decoded)) == wrong, "{wrong}");
        }
        assert_eq!(decode("%"), Some(Decoded::Name(String::new())));
        assert_eq!(decode("%41"), None);
        assert_eq!(decode("%2f"), None);
    }

    fn name(decoded: Option<Decoded>) -> String {
        match decoded {
            Some(Decoded::Name(name)) => name,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn every_name_is_a_component_and_comes_back(original in ".{0,80}|[./%\u{0}-\u{1f}a]{0,12}") {
            let component = encode(&original);
            prop_assert!(!component.is_empty() && component.len() <= LONGEST && !component.contains(['/', '\0']));
            prop_assert!(component != "." && component != "..");
            if component.starts_with("%h") {
                prop_assert_eq!(decode(&component), Some(Decoded::Hashed));
            } else {
                prop_assert_eq!(decode(&component), Some(Decoded::Name(original.clone())));
            }
            let alias = alias(&original);
            prop_assert!(!alias.contains([':', '/']));
            if !alias.starts_with("%h") {
                prop_assert_eq!(unalias(&alias), Some(Decoded::Name(original)));
            }
        }

        #[test]
        fn no_two_names_share_a_component(a in "[a./%:\n]{0,6}", b in "[a./%:\n]{0,6}") {
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
            prop_assert_eq!(a == b, alias(&a) == alias(&b));
        }

        #[test]
        fn decoding_never_fails_otherwise_than_by_saying_no(component in ".{0,40}|[%h0-9a-fA-F]{0,8}") {
            if let Some(Decoded::Name(name)) = decode(&component) {
                prop_assert_eq!(encode(&name), component);
            }
        }
    }
}
