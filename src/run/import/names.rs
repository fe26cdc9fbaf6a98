//! What the images of an archive are called: as `ctr images import` of the server's version calls them.

use super::ImportFlags;
use crate::containerd::{Descriptor, Digest};
use crate::error::Result;
use crate::fail;
use crate::run::reference;

/// How containerd names an image in an annotation, and how OCI does: only its tag.
pub const NAME: &str = "io.containerd.image.name";
pub const TAG: &str = "org.opencontainers.image.ref.name";

/// How images are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// What stands before a tag.
    prefix: String,
    /// Whether a full name must begin with the prefix.
    filter: bool,
    digests: bool,
    /// No image by digest where there is one by name.
    skip_named: bool,
    /// A full name must pass the filter too.
    strict: bool,
}

impl Naming {
    /// What the flags say; `today` is the date, for a prefix where none is given.
    pub fn new(args: &ImportFlags, today: &str, modern: bool) -> Result<Naming> {
        if args.skip_digest_for_named && !args.digests {
            return fail!(Invalid, "--skip-digest-for-named goes with --digests only");
        }
        let given = args.base_name.as_deref().filter(|name| !name.is_empty());
        Ok(Naming {
            prefix: given.map_or_else(|| format!("import-{today}"), str::to_owned),
            filter: given.is_some(),
            digests: args.digests,
            // From 2.0 on `ctr` has this flag the wrong way round when it asks the transfer service, and so have its images.
            skip_named: args.skip_digest_for_named != modern,
            strict: modern,
        })
    }

    /// The names of one manifest of an archive's index; none where it gets none.
    pub fn of(&self, manifest: &Descriptor) -> Vec<String> {
        let named = self.name(manifest);
        let by_digest = self.digests && !(self.skip_named && named.is_some());
        let digest = by_digest.then(|| self.by_digest(&manifest.digest));
        named.into_iter().chain(digest).collect()
    }

    fn by_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.prefix)
    }

    fn name(&self, manifest: &Descriptor) -> Option<String> {
        let said = |key| manifest.annotations.get(key).filter(|name| !name.is_empty());
        match (said(NAME), said(TAG)) {
            // It has to be whole already: one that would be completed or filtered is none.
            (Some(name), _) if self.strict => self.full(name).filter(|full| full == name),
            (Some(name), _) => Some(name.to_owned()),
            (None, Some(tag)) => self.full(tag),
            (None, None) => None,
        }
    }

    /// A tag becomes a name; a name stays, if it may.
    fn full(&self, name: &str) -> Option<String> {
        if !name.contains(['/', ':', '@']) {
            return Some(format!("{}:{name}", self.prefix));
        }
        let begins =
            name.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
        (!self.filter || begins).then(|| name.to_owned())
    }
}

/// The annotations that a Docker archive's tag becomes.
pub fn annotations(tag: &str) -> Result<[(&'static str, String); 2]> {
    let Some(name) = reference::normalized(tag) else { return fail!(Corrupt, "{tag:?} is no name of an image") };
    let object = reference::tag(&name);
    Ok([(NAME, name), (TAG, object)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn manifest(annotations: &[(&str, &str)]) -> Descriptor {
        let annotations = annotations.iter().copied().collect();
        let (platform, artifact_type) = (None, None);
        Descriptor { media_type: "".into(), digest: Digest::of(b""), size: 0, annotations, platform, artifact_type }
    }

    #[test]
    fn names_are_those_of_ctr() {
        let named = |flags: &[&str], modern: bool, annotations: &[(&str, &str)]| {
            let args = ImportFlags::try_parse_from(flags).unwrap();
            Naming::new(&args, "2026-01-02", modern).unwrap().of(&manifest(annotations))
        };
        let digest = Digest::of(b"");
        assert_eq!(named(&[], false, &[(TAG, "1.0")]), ["import-2026-01-02:1.0"]);
        assert_eq!(named(&[], false, &[(TAG, "h/a:1.0")]), ["h/a:1.0"]);
        assert_eq!(named(&[], false, &[]), [""; 0]);
        assert_eq!(named(&["--base-name", "h/a"], false, &[(TAG, "1.0")]), ["h/a:1.0"]);
        assert_eq!(named(&["--base-name", "h/a"], false, &[(TAG, "h/ab:1.0")]), [""; 0]);
        assert_eq!(named(&["--base-name", "h/a"], false, &[(TAG, "h/a:1.0")]), ["h/a:1.0"]);
        assert_eq!(named(&["--base-name", "h/a"], false, &[(NAME, "other:1"), (TAG, "1")]), ["other:1"]);
        assert_eq!(named(&["--base-name", "h/a"], true, &[(NAME, "other:1"), (TAG, "1")]), [""; 0]);
        assert_eq!(named(&[], true, &[(NAME, "other:1"), (TAG, "1")]), ["other:1"]);
        let by_digest = format!("h/a@{digest}");
        let flags = ["--base-name", "h/a", "--digests"];
        assert_eq!(named(&flags, false, &[(TAG, "1")]), ["h/a:1", &by_digest]);
        assert_eq!(named(&flags, true, &[(TAG, "1")]), ["h/a:1"]);
        assert_eq!(named(&flags, true, &[]), [by_digest.as_str()]);
        let flags = ["--base-name", "h/a", "--digests", "--skip-digest-for-named"];
        assert_eq!(named(&flags, false, &[(TAG, "1")]), ["h/a:1"]);
        assert_eq!(named(&flags, true, &[(TAG, "1")]), ["h/a:1", &by_digest]);
    }
}
