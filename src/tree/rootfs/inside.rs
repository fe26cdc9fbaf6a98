//! `-o symlinks=inside`: where links of a root filesystem lead, so that following one never leaves it.

/// The target of a link in a directory `depth` levels below the root, so that it leads to what it leads to after
/// chroot(2) into the root: an absolute target is made relative, and what would climb above the root stays there.
/// `None` if it stays inside as it is.
pub fn inside(target: &[u8], depth: usize) -> Option<Vec<u8>> {
    if target.first() == Some(&b'/') {
        let clamped = clamp(target, 0).unwrap_or_else(|| target.to_vec());
        let below = clamped.iter().position(|&byte| byte != b'/').map_or(&b""[..], |at| &clamped[at..]);
        let up = b"../".repeat(depth);
        return Some(match (depth, below.is_empty()) {
            (0, true) => b".".to_vec(),
            (_, true) => up[..up.len() - 1].to_vec(),
            _ => [&up, below].concat(),
        });
    }
    clamp(target, depth)
}

/// Leaves out each `..` that would climb above the root, from `depth` levels below it; `None` if none would.
fn clamp(target: &[u8], depth: usize) -> Option<Vec<u8>> {
    let (mut level, mut kept, mut climbs) = (depth, Vec::new(), false);
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b".." if level == 0 => {
                climbs = true;
                continue;
            }
            b".." => level -= 1,
            b"" | b"." => {}
            _ => level += 1,
        }
        kept.push(part);
    }
    if !climbs {
        return None;
    }
    let kept = kept.join(&b'/');
    Some(if kept.is_empty() { b".".to_vec() } else { kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_lead_where_they_would_after_chroot() {
        for (target, depth, expected) in [
            ("/etc/passwd", 0, Some("etc/passwd")),
            ("/etc/passwd", 2, Some("../../etc/passwd")),
            ("//usr//lib/", 1, Some("../usr//lib/")),
            ("/", 0, Some(".")),
            ("/", 3, Some("../../..")),
            ("/../../etc", 1, Some("../etc")),
            ("../a", 1, None),
            ("../../a", 1, Some("../a")),
            ("../../../etc/passwd", 0, Some("etc/passwd")),
            ("x/../../y", 0, Some("x/../y")),
            ("..", 0, Some(".")),
            ("plain", 0, None),
            ("a/./b/../c", 5, None),
        ] {
            let found = inside(target.as_bytes(), depth).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expected, "{target} at {depth}");
        }
    }
}
