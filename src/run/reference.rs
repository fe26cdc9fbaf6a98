//! The names that `ctr images export` gives an image in an archive: the tag for OCI, the familiar name for Docker.

/// What stands behind the name in a reference: containerd's `reference.Parse(name).Object`, and the whole name where
/// that is none (`ociReferenceName` in its `images/archive`).
pub fn tag(name: &str) -> String {
    object(name).unwrap_or_else(|| name.to_owned())
}

/// containerd reads a reference as Go reads the URL `dummy://<name>`.
fn object(name: &str) -> Option<String> {
    if name.contains(|c: char| c.is_ascii_control()) {
        return None;
    }
    let (name, fragment) = name.split_once('#').unwrap_or((name, ""));
    unescape(fragment)?;
    let (name, _) = name.split_once('?').unwrap_or((name, ""));
    let (authority, path) = name.find('/').map_or((name, ""), |at| name.split_at(at));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let port =
        if host.starts_with('[') { host.rsplit_once(']')?.1 } else { host.rfind(':').map_or("", |at| &host[at..]) };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let strange = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric();
    if host.is_empty()
        || !digits.bytes().all(|b| b.is_ascii_digit())
        || host.contains(|c: char| strange(c) && !"-_.~!$&'()*+,;=:[]<>\"".contains(c))
        || user.contains(|c: char| !c.is_ascii() || strange(c) && !"-._:~!$&'()*+,;=%@".contains(c))
    {
        return None;
    }
    let path = unescape(path)?;
    let object = path.find([':', '@']).map_or("", |at| &path[at..]);
    Some(object.strip_prefix(':').unwrap_or(object).to_owned())
}

/// Percent-encoding undone.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>()?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        out.push(byte[0]);
        rest = tail;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The name under which `docker load` makes the image: without `docker.io/library/`, with `latest` where there is no
/// tag (`familiarizeReference` in containerd's `images/archive`). None if Docker knows no such names; that includes
/// references by digest, which `ctr` writes and `docker load` refuses.
pub fn familiar(name: &str) -> Option<String> {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if name.contains('@') || (name.len() == 64 && hex(name) && name.to_lowercase() == name) {
        return None;
    }
    let is_domain = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase())
    };
    let (domain, rest) = name.split_once('/').filter(|(first, _)| is_domain(first)).unwrap_or(("docker.io", name));
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let (path, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
    if !is_host(domain) || !path.split('/').all(is_component) || !is_tag(tag) || domain.len() + path.len() >= 255 {
        return None;
    }
    if domain != "docker.io" {
        return Some(format!("{domain}/{path}:{tag}"));
    }
    let official = path.strip_prefix("library/").filter(|path| !path.contains('/'));
    Some(format!("{}:{tag}", official.unwrap_or(path)))
}

/// The full name of what Docker calls so: `busybox` is `docker.io/library/busybox:latest` (`ParseDockerRef`). None if it
/// is no name of Docker's.
pub fn normalized(name: &str) -> Option<String> {
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let at = name.rfind('/').map_or(0, |at| at + 1);
    let (bare, tag) = match name[at..].find(':') {
        Some(colon) => (&name[..at + colon], Some(&name[at + colon + 1..])),
        None => (name, None),
    };
    // What is written short has a name without a host in it, and one without a slash is one of Docker's own.
    let short = familiar(bare)?;
    let short = short.strip_suffix(":latest").unwrap_or(&short);
    let is_full =
        bare == short && bare.split('/').next().is_some_and(|first| first.contains(['.', ':']) || first == "localhost");
    let full = match (is_full && bare.contains('/'), short.contains('/')) {
        (true, _) => short.to_owned(),
        (false, true) => format!("docker.io/{short}"),
        (false, false) => format!("docker.io/library/{short}"),
    };
    match (digest, tag) {
        (Some(digest), tag) => {
            let known = crate::containerd::Digest::parse(digest).is_some() && tag.is_none_or(is_tag);
            known.then(|| format!("{full}@{digest}"))
        }
        (None, Some(tag)) => is_tag(tag).then(|| format!("{full}:{tag}")),
        (None, None) => Some(format!("{full}:latest")),
    }
}

fn is_host(domain: &str) -> bool {
    let (name, port) = domain.split_once(':').unwrap_or((domain, "0"));
    let part = |part: &str| {
        part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !part.starts_with('-') && !part.ends_with('-')
    };
    name.split('.').all(|p| !p.is_empty() && part(p)) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Letters and digits, with one dot, one or two underscores or some dashes between them.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<u8>| b.is_some_and(is_word);
    let between = component.split(|c: char| c.is_ascii() && is_word(c as u8)).filter(|between| !between.is_empty());
    ends(component.bytes().next())
        && ends(component.bytes().last())
        && between.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_what_containerd_finds_behind_the_name() {
        for (name, wanted) in [
            ("docker.io/library/nginx:1.27", "1.27"),
            ("localhost:5000/a/b", ""),
            ("localhost:5000/a:b", "b"),
            ("docker.io/library/nginx@sha256:ab", "@sha256:ab"),
            ("docker.io/library/nginx:1@sha256:ab", "1@sha256:ab"),
            // The tag looks like a port, and is none.
            ("nginx:1.27", "nginx:1.27"),
            ("sha256:abc", "sha256:abc"),
            ("busybox:1", ""),
            ("a b/c:d", "a b/c:d"),
            ("h/a%3Ab", "b"),
            ("h/a%zz:b", "h/a%zz:b"),
            ("/a:b", "/a:b"),
            ("a\nb/c:d", "a\nb/c:d"),
        ] {
            assert_eq!(tag(name), wanted, "{name}");
        }
    }

    #[test]
    fn what_docker_writes_short_has_a_full_name() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, wanted) in [
            ("busybox", Some("docker.io/library/busybox:latest")),
            ("busybox:1", Some("docker.io/library/busybox:1")),
            ("me/it:1", Some("docker.io/me/it:1")),
            ("localhost/it:1", Some("localhost/it:1")),
            ("localhost:5000/it", Some("localhost:5000/it:latest")),
            ("h.example/a/b:1", Some("h.example/a/b:1")),
            ("docker.io/library/a:1", Some("docker.io/library/a:1")),
            ("docker.io/a:1", Some("docker.io/library/a:1")),
            ("index.docker.io/me/a", Some("docker.io/me/a:latest")),
            ("a:b c", None),
            ("", None),
            ("A/b/C", None),
        ] {
            assert_eq!(normalized(name).as_deref(), wanted, "{name}");
        }
        assert_eq!(normalized(&format!("a:1@{digest}")), Some(format!("docker.io/library/a@{digest}")));
        assert_eq!(normalized("a@sha256:1"), None);
    }

    #[test]
    fn docker_knows_an_image_by_its_familiar_name() {
        for (name, wanted) in [
            ("docker.io/library/hello:latest", Some("hello:latest")),
            ("docker.io/library/hello", Some("hello:latest")),
            ("docker.io/library/a/b:1", Some("library/a/b:1")),
            ("index.docker.io/me/it:1", Some("me/it:1")),
            ("me/it", Some("me/it:latest")),
            ("localhost/it:1", Some("localhost/it:1")),
            ("localhost:5000/it", Some("localhost:5000/it:latest")),
            ("registry.k8s.io/pause:3.9", Some("registry.k8s.io/pause:3.9")),
            ("x/a__b-c.d/e---f:1", Some("x/a__b-c.d/e---f:1")),
            ("x/a___b", None),
            ("docker.io/library/hello@sha256:ab", None),
            ("docker.io/Library/hello:1", None),
            ("", None),
            (" ", None),
            ("a//b", None),
            ("../up", None),
            ("a:", None),
            ("a:b c", None),
        ] {
            assert_eq!(familiar(name).as_deref(), wanted, "{name}");
        }
    }
}
