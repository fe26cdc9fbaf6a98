//! Which extended attributes of an archive reach a file: what containerd's `setxattr` skips, and what the kernel
//! (fs/xattr.c, security/commoncap.c) refuses or alters.

use super::path::{join, show};
use crate::error::Result;
use crate::layers::tree::{Type, Xattrs};

pub(super) const CAPABILITY: &[u8] = b"security.capability";
/// The kernel's `XATTR_SIZE_MAX` and `XATTR_NAME_MAX`.
const MAX_VALUE: usize = 65536;
const MAX_NAME: usize = 255;

/// Adds the attributes of a member of type `kind` to those that the file has.
pub(super) fn set(have: &mut Xattrs, kind: Type, path: &[u8], new: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    for (name, value) in new {
        let refused = |why: &str| {
            let name = show(name);
            crate::fail!(Corrupt, "failed to setxattr {:?} for key {name:?}: {why}", show(&join(b"/", path)))
        };
        if name.starts_with(b"trusted.") {
            continue;
        }
        if name.is_empty() || name.len() > MAX_NAME {
            return refused("numerical result out of range");
        }
        if value.len() > MAX_VALUE {
            return refused("argument list too long");
        }
        let user = name.strip_prefix(b"user.");
        if user.is_some() && !matches!(kind, Type::File | Type::Dir) {
            continue;
        }
        if matches!(&name[..], b"system.posix_acl_access" | b"system.posix_acl_default") {
            // Not shown (DESIGN 3), but one that cannot be read refuses the layer.
            if kind != Type::Symlink && malformed_acl(value) {
                return refused("invalid argument");
            }
            continue;
        }
        let Some(rest) = user.or_else(|| name.strip_prefix(b"security.")) else { continue };
        if rest.is_empty() {
            return refused("invalid argument");
        }
        let value = if name == CAPABILITY && !value.is_empty() {
            let Some(value) = capability(value) else { return refused("invalid argument") };
            value
        } else {
            value.clone()
        };
        match have.iter_mut().find(|(key, _)| **key == **name) {
            Some((_, old)) => *old = value.into(),
            None => have.push((name.as_slice().into(), value.into())),
        }
    }
    Ok(())
}

/// Whether the kernel cannot read this as an access control list; one of a version that it does not know is ignored.
fn malformed_acl(value: &[u8]) -> bool {
    match value.first_chunk() {
        Some(version) => u32::from_le_bytes(*version) == 2 && !(value.len() - 4).is_multiple_of(8),
        None => !value.is_empty(),
    }
}

/// A capability as it is read back, `None` if the kernel does not take it: revision 2 as it is; revision 3, which adds
/// the root of a user namespace, as revision 2 where that root is the host's own.
fn capability(value: &[u8]) -> Option<Vec<u8>> {
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    let flags = magic & 1;
    match (value.len(), magic & !1) {
        (20, 0x0200_0000) => Some(value.to_vec()),
        (24, 0x0300_0000) if value[20..] == [0; 4] => {
            let mut value = value[..20].to_vec();
            value[..4].copy_from_slice(&(0x0200_0000 | flags).to_le_bytes());
            Some(value)
        }
        (24, 0x0300_0000) if value[20..] != [0xff; 4] => Some(value.to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_of_the_host_s_root_is_shown_in_revision_2() {
        let mut three = vec![1, 0, 0, 3];
        three.extend([7; 16]);
        three.extend([0; 4]);
        assert_eq!(capability(&three).unwrap()[..4], [1, 0, 0, 2]);
        assert!(capability(b"bad").is_none());
        assert!(capability(&[0; 20]).is_none());
    }
}
