//! Directories on disk as layers: overlayfs's marks in them, hostile links, a live upper directory, and what it changed.
//! The marks are those of `userxattr`, which need no privilege; a device 0:0 may be made by anyone since Linux 5.8.

mod support;

use ctrfs::error::Kind;
use ctrfs::layers::changes::changes;
use ctrfs::layers::dir::{DirLayer, DirOptions};
use ctrfs::layers::merge::{Chain, ChainLayer, Layer, Options, Rootfs, Source, TarLayer};
use ctrfs::layers::tar::Parser;
use std::ffi::CString;
use std::fs::{self, FileTimes};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use support::tarball::*;
use tempfile::TempDir;

fn temp() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn whiteout(path: &Path) {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR, 0) }, 0, "mknod c 0 0 needs Linux 5.8");
}

fn mark(path: &Path, name: &str, value: &str) {
    let (path, name) = (CString::new(path.to_str().unwrap()).unwrap(), CString::new(name).unwrap());
    // SAFETY: both are C strings, and the value has the length that is told.
    let answer = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(answer, 0, "the file system of {path:?} must have user xattrs");
}

fn layer(dir: &Path, live: bool) -> Arc<dyn Layer> {
    Arc::new(DirLayer::open(dir, "upper", DirOptions { live, user_xattr: true }).unwrap())
}

fn base() -> Vec<Arc<dyn Layer>> {
    let archive = tar(&[
        d("etc/"),
        f("etc/passwd", "root"),
        f("etc/hosts", "h"),
        d("d/"),
        f("d/a", "1"),
        f("d/b", "2"),
        d("d/sub/"),
        f("d/sub/s", "3"),
        f("top", "t"),
    ]);
    let mut entries = Vec::new();
    let mut parser = Parser::new();
    parser
        .push(&archive, &mut |entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
    let options = ctrfs::layers::apply::Options { created: (TIME, 0), ..Default::default() };
    let tree = ctrfs::layers::apply::apply("sha256:base", &entries, ctrfs::layers::apply::Role::Base, &[], &options);
    vec![Arc::new(tree.unwrap())]
}

fn over(upper: Arc<dyn Layer>) -> Rootfs {
    let mut layers = vec![upper];
    layers.extend(base());
    Rootfs::new(layers, Options::default()).unwrap()
}

fn names(rootfs: &Rootfs, path: &str) -> Vec<String> {
    let (dir, _) = rootfs.walk(path.as_bytes()).unwrap().expect("a directory");
    let mut names: Vec<String> =
        rootfs.readdir(&dir).unwrap().into_iter().map(|(name, ..)| String::from_utf8(name).unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_marks_of_overlayfs_are_understood() {
    let upper = temp();
    let at = |name: &str| upper.path().join(name);
    whiteout(&at("top"));
    fs::create_dir(at("etc")).unwrap();
    whiteout(&at("etc/hosts"));
    fs::create_dir(at("d")).unwrap();
    mark(&at("d"), "user.overlay.opaque", "y");
    mark(&at("d"), "user.kept", "v");
    fs::write(at("d/new"), "n").unwrap();
    let rootfs = over(layer(upper.path(), false));
    assert_eq!(names(&rootfs, "/"), ["d", "etc"]);
    assert_eq!(names(&rootfs, "/etc"), ["passwd"]);
    assert_eq!(names(&rootfs, "/d"), ["new"]);
    assert!(rootfs.walk(b"/top").unwrap().is_none());
    let (dir, _) = rootfs.walk(b"/d").unwrap().unwrap();
    assert_eq!(rootfs.xattr_list(&dir).unwrap(), [b"user.kept"]);
    assert_eq!(rootfs.xattr_get(&dir, b"user.kept").unwrap().unwrap(), b"v");
    assert!(rootfs.xattr_get(&dir, b"user.overlay.opaque").unwrap().is_none());
    let mut hidden = Vec::new();
    rootfs
        .hidden(&mut |item| {
            hidden.push(String::from_utf8(item.path).unwrap());
            Ok(())
        })
        .unwrap();
    hidden.sort();
    assert_eq!(hidden, ["/d/a", "/d/b", "/d/sub", "/etc/hosts", "/top"]);
}

#[test]
fn a_moved_directory_and_a_file_without_content_are_refused() {
    let upper = temp();
    let at = |name: &str| upper.path().join(name);
    fs::create_dir(at("d")).unwrap();
    mark(&at("d"), "user.overlay.redirect", "/elsewhere");
    fs::write(at("m"), "").unwrap();
    mark(&at("m"), "user.overlay.metacopy", "");
    let rootfs = over(layer(upper.path(), false));
    let (dir, _) = rootfs.walk(b"/d").unwrap().unwrap();
    assert_eq!(rootfs.readdir(&dir).unwrap_err().kind(), Kind::Unsupported);
    let (file, _) = rootfs.walk(b"/m").unwrap().unwrap();
    assert_eq!(rootfs.source(&file).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn no_link_leads_out_of_the_directory() {
    let (upper, outside) = (temp(), temp());
    fs::write(outside.path().join("secret"), "s").unwrap();
    fs::create_dir_all(upper.path().join("a/b")).unwrap();
    fs::write(upper.path().join("a/b/secret"), "inside").unwrap();
    let rootfs = over(layer(upper.path(), true));
    let (file, _) = rootfs.walk(b"/a/b/secret").unwrap().unwrap();
    let (dir, _) = rootfs.walk(b"/a/b").unwrap().unwrap();
    // A directory on the way becomes a link while handles are held.
    fs::rename(upper.path().join("a"), upper.path().join("old")).unwrap();
    symlink(outside.path(), upper.path().join("a")).unwrap();
    fs::create_dir(outside.path().join("b")).unwrap();
    fs::write(outside.path().join("b/secret"), "s").unwrap();
    assert_eq!(rootfs.source(&file).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(rootfs.readdir(&dir).unwrap_err().kind(), Kind::NotFound);
    let raw = layer(upper.path(), false);
    let path = ctrfs::layers::merge::At::Path((&b"a/b/secret"[..]).into());
    assert_eq!(raw.attr(&path).unwrap_err().kind(), Kind::NotFound);
    for name in [&b".."[..], b".", b"", b"a/b", b"a\0"] {
        assert!(raw.find(&raw.root(), name).unwrap().is_none());
    }
    let (link, attr) = rootfs.walk(b"/a").unwrap().unwrap();
    assert_eq!(attr.kind, ctrfs::layers::tree::Type::Symlink);
    assert_eq!(rootfs.readlink(&link).unwrap(), outside.path().to_str().unwrap().as_bytes());
    assert!(rootfs.walk(b"/a/secret").unwrap().is_none());
}

#[test]
fn a_live_directory_is_shown_as_it_is_now() {
    let upper = temp();
    let rootfs = over(layer(upper.path(), true));
    let (etc, _) = rootfs.walk(b"/etc").unwrap().unwrap();
    let (hosts, before) = rootfs.lookup(&etc, b"hosts").unwrap().unwrap();
    assert_eq!(before.size, 1);
    // The container writes: overlayfs copies the directory and the file up.
    fs::create_dir(upper.path().join("etc")).unwrap();
    fs::write(upper.path().join("etc/hosts"), "longer").unwrap();
    fs::write(upper.path().join("etc/new"), "n").unwrap();
    assert_eq!(rootfs.attr(&hosts).unwrap().size, 6);
    let Source::File { mut file, layer: 1 } = rootfs.source(&hosts).unwrap() else { panic!("the upper file") };
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "longer");
    assert!(rootfs.lookup(&etc, b"new").unwrap().is_some());
    fs::remove_file(upper.path().join("etc/hosts")).unwrap();
    whiteout(&upper.path().join("etc/hosts"));
    assert!(rootfs.lookup(&etc, b"hosts").unwrap().is_none());
    assert_eq!(rootfs.attr(&hosts).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_very_deep_directory_is_reached() {
    let upper = temp();
    let path = vec!["p".repeat(200); 30];
    // Made one in the other, for the path as a whole is longer than the kernel takes.
    let mut dir = fs::File::open(upper.path()).unwrap();
    for part in &path {
        let inner = format!("/proc/self/fd/{}/{part}", dir.as_raw_fd());
        fs::create_dir(&inner).unwrap();
        dir = fs::File::open(&inner).unwrap();
    }
    fs::write(format!("/proc/self/fd/{}/file", dir.as_raw_fd()), "x\n").unwrap();
    let rootfs = over(layer(upper.path(), true));
    let (file, attr) = rootfs.walk(format!("/{}/file", path.join("/")).as_bytes()).unwrap().unwrap();
    assert_eq!(attr.size, 2);
    assert!(matches!(rootfs.source(&file).unwrap(), Source::File { .. }));
}

/// Gives a file the owner, mode and time of the base's.
fn copied_up(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME as u64);
    fs::File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn changes_are_told_as_docker_diff_tells_them() {
    // SAFETY: it only asks.
    assert_eq!(unsafe { libc::geteuid() }, 0, "owners are compared with the image's, so this test needs root");
    let upper = temp();
    let at = |name: &str| upper.path().join(name);
    whiteout(&at("top"));
    whiteout(&at("never-was"));
    fs::create_dir(at("etc")).unwrap();
    fs::write(at("etc/hosts"), "changed").unwrap();
    fs::create_dir_all(at("new/dir")).unwrap();
    fs::write(at("new/dir/line\nbreak"), "").unwrap();
    fs::create_dir_all(at("d/sub")).unwrap();
    mark(&at("d"), "user.overlay.opaque", "y");
    fs::write(at("d/a"), "1").unwrap();
    for (name, mode) in [("d/a", 0o644), ("d/sub", 0o755), ("d", 0o755), ("etc", 0o755)] {
        copied_up(&at(name), mode);
    }
    let lines: Vec<u8> = changes(&layer(upper.path(), true), base()).unwrap().iter().flat_map(|c| c.line()).collect();
    let expected = "C /d\nD /d/b\nC /d/sub\nD /d/sub/s\nC /etc\nC /etc/hosts\nA /new\nA /new/dir\n\
                    A /new/dir/line\\012break\nD /top\n";
    assert_eq!(String::from_utf8(lines).unwrap(), expected);
}

#[test]
fn a_directory_that_was_only_copied_up_is_no_change() {
    // SAFETY: it only asks.
    assert_eq!(unsafe { libc::geteuid() }, 0, "owners are compared with the image's, so this test needs root");
    let upper = temp();
    fs::create_dir_all(upper.path().join("d/sub")).unwrap();
    copied_up(&upper.path().join("d/sub"), 0o755);
    copied_up(&upper.path().join("d"), 0o755);
    assert!(changes(&layer(upper.path(), true), base()).unwrap().is_empty());
    copied_up(&upper.path().join("d/sub"), 0o700);
    let lines: Vec<u8> = changes(&layer(upper.path(), true), base()).unwrap().iter().flat_map(|c| c.line()).collect();
    assert_eq!(lines, b"C /d\nC /d/sub\n");
}

#[test]
fn a_chain_may_mix_directories_and_archives() {
    let lower = temp();
    fs::create_dir_all(lower.path().join("usr/lib")).unwrap();
    fs::set_permissions(lower.path().join("usr/lib"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(lower.path().join("usr/lib/a"), "a").unwrap();
    symlink("usr/lib", lower.path().join("lib")).unwrap();
    let mut entries = Vec::new();
    Parser::new()
        .push(&tar(&[f("lib/b", "b"), f("usr/lib/c", "c")]), &mut |entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
    let tar = TarLayer { digest: "sha256:1", entries: &entries };
    let chain = [ChainLayer::Ready(layer(lower.path(), false)), ChainLayer::Tar(tar)];
    let rootfs = Chain { created: (TIME, 0), ..Chain::default() }.build(&chain).unwrap();
    assert_eq!(names(&rootfs, "/lib"), ["b"]);
    assert_eq!(names(&rootfs, "/usr/lib"), ["a", "c"]);
    let (_, attr) = rootfs.walk(b"/lib").unwrap().unwrap();
    assert_eq!(attr.perm, 0o700, "an implied directory takes after the one that the link below leads to");
}

/// containerd removes a snapshot's files one by one. A layer of which only a part is left must not be taken for a whole
/// one: the files that lie below would be seen in place of its own.
#[test]
fn what_is_being_removed_is_not_believed() {
    type Change = fn(&Path);
    type Question = fn(&Rootfs);
    let lookup: Question = |rootfs| drop(rootfs.walk(b"etc/passwd").unwrap());
    let list: Question = |rootfs| drop(rootfs.walk(b"etc").unwrap().map(|(etc, _)| rootfs.readdir(&etc).unwrap()));
    let remove: Change = |dir| fs::remove_file(dir.join("etc/passwd")).unwrap();
    let remove_all: Change = |dir| fs::remove_dir_all(dir).unwrap();
    for (change, question) in [(remove, lookup), (remove, list), (remove_all, lookup), (remove_all, list)] {
        let dir = temp();
        let fs_dir = dir.path().join("fs");
        fs::create_dir_all(fs_dir.join("etc")).unwrap();
        fs::write(fs_dir.join("etc/passwd"), "upper").unwrap();
        // A file system's clock ticks every 4 or 10 ms.
        std::thread::sleep(Duration::from_millis(30));
        let rootfs = over(layer(&fs_dir, false));
        question(&rootfs);
        assert!(rootfs.is_whole(), "nothing was removed yet");
        std::thread::sleep(Duration::from_millis(30));
        change(&fs_dir);
        assert!(rootfs.is_whole(), "nobody has looked yet");
        question(&rootfs);
        assert!(!rootfs.is_whole());
    }
}

/// A place that was found, and went away since, tells that the layer does.
#[test]
fn a_place_that_is_gone_is_not_believed() {
    let dir = temp();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "upper").unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let rootfs = over(layer(dir.path(), false));
    let (file, _) = rootfs.walk(b"d/f").unwrap().unwrap();
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    assert_eq!(rootfs.attr(&file).unwrap_err().kind(), Kind::NotFound);
    assert!(!rootfs.is_whole());
}
