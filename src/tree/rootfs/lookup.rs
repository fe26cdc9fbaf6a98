//! One file of a root filesystem that a process is going to have: users and groups are looked up in it.
//!
//! Links in it were chosen by whoever made the image, so they are followed here and never by the kernel.

use super::unpacked::directories;
use crate::containerd::Mount;
use crate::error::Result;
use crate::fail;
use crate::layers::merge::{Handle, Options, Rootfs, Source};
use crate::layers::tree::Type;
use std::collections::VecDeque;
use std::io::Read;

/// Links on the way to one file, at most.
const LINKS: usize = 40;

/// Of a file, so much is read.
const BYTES: u64 = 1 << 20;

/// The bytes of the file at `path`, links resolved inside the root; `None` if there is none.
pub fn read_file(mounts: &[Mount], path: &str) -> Result<Option<Vec<u8>>> {
    let Some(found) = directories(mounts) else {
        return fail!(
            Unsupported,
            "{path} of the container: its snapshotter keeps no directories, so names of users are not known; say numbers"
        );
    };
    let layers = found.layers("")?;
    let options = Options { root_mtime: None, overlay: layers.len() > 1 };
    let rootfs = Rootfs::new(layers, options)?;
    let Some(file) = follow(&rootfs, path)? else { return Ok(None) };
    let Source::File { file, .. } = rootfs.source(&file)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The regular file at `path`.
fn follow(rootfs: &Rootfs, path: &str) -> Result<Option<Handle>> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
    };
    let mut above: Vec<Handle> = vec![rootfs.root()];
    let mut ahead: VecDeque<Vec<u8>> = parts(path.as_bytes()).into();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == b".." {
            // The root is above itself.
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let Some((handle, attr)) = above.last().map_or(Ok(None), |dir| rootfs.lookup(dir, &part))? else {
            return Ok(None);
        };
        match attr.kind {
            Type::Symlink => {
                links += 1;
                if links > LINKS {
                    return fail!(Invalid, "{path} of the container: links lead in a circle");
                }
                let target = rootfs.readlink(&handle)?;
                if target.first() == Some(&b'/') {
                    above.truncate(1);
                }
                parts(&target).into_iter().rev().for_each(|part| ahead.push_front(part));
            }
            Type::Dir => above.push(handle),
            Type::File if ahead.is_empty() => return Ok(Some(handle)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        std::fs::write(at("usr/lib/passwd"), "inside").unwrap();
        symlink("/usr/lib/passwd", at("etc/passwd")).unwrap();
        symlink("../../../../usr/lib/passwd", at("etc/group")).unwrap();
        symlink("loop", at("etc/loop")).unwrap();
        let source = dir.path().to_str().unwrap().to_owned();
        let mounts = [Mount { kind: "bind".into(), source, target: String::new(), options: Vec::new() }];
        let read = |path: &str| read_file(&mounts, path);
        assert_eq!(read("/etc/passwd").unwrap().unwrap(), b"inside");
        assert_eq!(read("/etc/group").unwrap().unwrap(), b"inside");
        assert_eq!(read("/etc/none").unwrap(), None);
        assert_eq!(read("/etc").unwrap(), None);
        assert!(read("/etc/loop").is_err());
        assert!(read_file(&[], "/etc/passwd").is_err());
    }
}
