//! Chains of arbitrary members: an error, or a tree in which everything agrees.
//!
//! An input is text, so that a corpus can be read: a line a member, `--` between layers, fields separated by tabs:
//! type flag, name, link target, mode (octal), uid, gid, mtime, major, minor, size, xattrs (`key=value`). What is
//! missing is as usual.

use super::shown::shown;
use ctrfs::error::Kind;
use ctrfs::layers::Entry;
use ctrfs::layers::merge::{Chain, ChainLayer, Rootfs, TarLayer};
use ctrfs::layers::tar::Limits;

const LAYERS: usize = 6;
const DIGESTS: [&str; LAYERS + 1] =
    ["sha256:0", "sha256:1", "sha256:2", "sha256:3", "sha256:4", "sha256:5", "sha256:6"];

/// The members that a text means.
pub fn read(data: &[u8]) -> Vec<Vec<Entry>> {
    let mut layers = vec![Vec::new()];
    for (number, line) in data.split(|&byte| byte == b'\n').enumerate() {
        match line {
            b"--" if layers.len() < LAYERS => layers.push(Vec::new()),
            b"--" => break,
            b"" => {}
            _ => layers.last_mut().unwrap().push(entry(line, number as u64 * 1024)),
        }
    }
    layers
}

fn entry(line: &[u8], data: u64) -> Entry {
    let mut fields = line.split(|&byte| byte == b'\t');
    let mut next = || fields.next().unwrap_or_default();
    let flag = next().first().copied().unwrap_or(b'0');
    let (name, link) = (without_nul(next()), without_nul(next()));
    let usual = if flag == b'5' { 0o755 } else { 0o644 };
    let mut number = |radix, usual| {
        let text = str::from_utf8(next()).unwrap_or_default();
        u64::from_str_radix(text, radix).unwrap_or(usual)
    };
    let mode = number(8, usual) as u32;
    let (uid, gid, mtime) = (number(10, 0) as u32, number(10, 0) as u32, number(10, 1_700_000_000));
    let (major, minor, size) = (number(10, 0) as u32, number(10, 0) as u32, number(10, 0) & 0xffff_ffff);
    let pair = |field: &[u8]| {
        let at = field.iter().position(|&byte| byte == b'=')?;
        Some((without_nul(&field[..at]), field[at + 1..].to_vec()))
    };
    let xattrs = fields.filter_map(pair).collect();
    let size = if matches!(flag, b'0' | b'7') { size } else { 0 };
    // What the parser lets through: what 63 bits of nanoseconds hold.
    let mtime = ((mtime & 0x1_ffff_ffff) as i64, 0);
    Entry { name, flag, mode, uid, gid, size, mtime, link, major, minor, xattrs, data, sparse: Vec::new() }
}

/// The parser lets no NUL through.
fn without_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|&byte| byte != 0).collect()
}

/// The text of some members, as far as it can say them.
#[allow(dead_code, reason = "the corpus is made by a test")]
pub fn write(layers: &[Vec<Entry>]) -> Vec<u8> {
    let mut text = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        if number > 0 {
            text.extend(b"--\n");
        }
        for entry in layer {
            let plain = |bytes: &[u8]| -> Vec<u8> {
                bytes.iter().map(|&byte| if matches!(byte, b'\t' | b'\n') { b'?' } else { byte }).collect()
            };
            let Entry { mode, uid, gid, major, minor, size, .. } = entry;
            let mtime = entry.mtime.0;
            text.extend([entry.flag, b'\t']);
            text.extend(plain(&entry.name));
            text.push(b'\t');
            text.extend(plain(&entry.link));
            text.extend(format!("\t{mode:o}\t{uid}\t{gid}\t{mtime}\t{major}\t{minor}\t{size}").bytes());
            for (name, value) in &entry.xattrs {
                text.push(b'\t');
                text.extend(plain(&[&name[..], b"=", value].concat()));
            }
            text.push(b'\n');
        }
    }
    text
}

pub fn check(data: &[u8]) {
    let entries = read(data);
    let limits = Limits { work: 1_000_000, nodes: 100_000, ..Limits::default() };
    let chain = Chain { created: (1, 0), limits };
    let tars: Vec<TarLayer> =
        entries.iter().zip(DIGESTS).map(|(entries, digest)| TarLayer { digest, entries }).collect();
    let layers = || tars.iter().map(|&tar| ChainLayer::Tar(tar)).collect::<Vec<_>>();
    for &tar in &tars {
        let _ = chain.alone(tar).map(|rootfs| shown(&rootfs, None));
    }
    let native = chain.native(&tars).map(|rootfs| shown(&rootfs, None));
    let whole = chain.build(&layers());
    let seen = match &whole {
        Ok(rootfs) => shown(rootfs, None),
        Err(error) => {
            assert!(matches!(error.kind(), Kind::Corrupt | Kind::TooLong), "{error:?}");
            assert!(native.is_err() || error.kind() == Kind::TooLong, "native takes what is refused: {error:?}");
            return;
        }
    };
    if let Err(error) = chain.overlay(&layers())
        && error.kind() == Kind::Corrupt
    {
        assert_eq!(Some(&seen), native.as_ref().ok(), "where overlayfs refuses, native is shown");
    }
    hidden(whole.as_ref().unwrap());
    // A layer with nothing in it changes nothing; only that of one layer is a bind mount, and of two an overlay.
    if tars.len() > 1 {
        let mut more = layers();
        more.push(ChainLayer::Tar(TarLayer { digest: DIGESTS[tars.len()], entries: &[] }));
        let again = chain.build(&more).expect("an empty layer refuses nothing");
        assert!(shown(&again, None) == seen, "an empty layer on top shows something else");
    }
}

/// What is told as hidden is not shown from that layer.
fn hidden(rootfs: &Rootfs) {
    let mut all = Vec::new();
    let told = rootfs.hidden(&mut |item| {
        all.push((item.layer, item.path));
        Ok(())
    });
    if let Err(error) = told {
        assert_eq!(error.kind(), Kind::TooLong, "{error:?}");
    }
    for (layer, path) in all {
        let found = rootfs.walk(&path).unwrap();
        let from = found.map(|(handle, _)| rootfs.layer_of(&handle).unwrap());
        assert_ne!(from, Some(layer), "{} is shown and told as hidden", path.escape_ascii());
    }
}
