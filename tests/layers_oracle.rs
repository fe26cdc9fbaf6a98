//! The merge against an oracle that applies layers to a map: of archives, as the native snapshotter does it and as
//! overlayfs does, and of any mixture of archives and unpacked directories.

mod support;

use ctrfs::layers::Entry;
use ctrfs::layers::hidden::Hidden;
use ctrfs::layers::merge::{ChainLayer, Rootfs, TarLayer, UnpackedLayer};
use ctrfs::layers::tree::Type;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use support::merged::{CHAIN, DIGESTS, Shown, each, entries, walk};
use support::tarball::*;

/// A file as a layer makes it.
#[derive(Debug, Clone)]
struct Node {
    kind: Type,
    mode: u16,
    mtime: i64,
    bytes: Vec<u8>,
    /// A hard link to this path of the layer.
    link: Option<String>,
}

#[derive(Debug, Clone)]
enum Op {
    Add(String, Node),
    /// A hard link to one of the files that the layer has by then.
    Link(String, usize, u16, i64),
    Whiteout(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    let mode = || prop::sample::select(vec![0o755u16, 0o700, 0o644]);
    let time = || TIME..TIME + 3;
    let kind = prop::sample::select(vec![Type::File, Type::File, Type::Dir, Type::Dir, Type::Symlink]);
    prop_oneof![
        4 => (path(), kind, mode(), time(), "[xyz]{1,3}").prop_map(|(path, kind, mode, mtime, text)| {
            let mode = if kind == Type::Symlink { 0o777 } else { mode };
            let bytes = if kind == Type::Dir { Vec::new() } else { text.into_bytes() };
            Op::Add(path, Node { kind, mode, mtime, bytes, link: None })
        }),
        2 => (path(), any::<usize>(), mode(), time()).prop_map(|(path, which, mode, time)| Op::Link(path, which, mode, time)),
        2 => path().prop_map(Op::Whiteout),
        2 => path().prop_map(Op::Opaque),
    ]
}

fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn under(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// The mode of a directory that nobody describes.
const IMPLIED: u16 = 0o755;

fn directory(mode: u16) -> Node {
    Node { kind: Type::Dir, mode, mtime: TIME, bytes: Vec::new(), link: None }
}

/// The oracle: a map that layers are applied to.
#[derive(Debug, Default, Clone)]
struct Oracle {
    files: BTreeMap<String, Known>,
    /// Every path that some layer had or deleted, and whether it was a directory in all of them.
    ever: HashMap<String, bool>,
    inodes: usize,
}

#[derive(Debug, Clone)]
struct Known {
    node: Node,
    inode: usize,
    /// How many names the layer gave it that made it.
    names: u32,
}

impl Oracle {
    fn remove(&mut self, path: &str, itself: bool) {
        self.files.retain(|have, _| !(under(have, path) || itself && have == path));
    }

    fn apply(&mut self, layer: &Sane) {
        layer.whiteouts.iter().for_each(|path| self.remove(path, true));
        layer.opaque.iter().for_each(|path| self.remove(path, false));
        for (path, _) in &layer.implied {
            if !self.files.contains_key(path) {
                self.put(path, directory(IMPLIED), None);
            }
        }
        let mut made: HashMap<&str, usize> = HashMap::new();
        for (path, node) in &layer.nodes {
            if node.kind != Type::Dir || self.files.get(path).is_some_and(|have| have.node.kind != Type::Dir) {
                self.remove(path, false);
            }
            let first = node.link.as_deref().map(|target| made[target]);
            let inode = self.put(path, node.clone(), first);
            made.insert(path, inode);
        }
        let made = layer.nodes.iter().map(|(path, node)| (path, node.kind == Type::Dir));
        let implied = layer.implied.iter().map(|(path, _)| (path, true));
        for (path, dir) in made.chain(implied).chain(layer.whiteouts.iter().map(|path| (path, false))) {
            *self.ever.entry(path.clone()).or_insert(true) &= dir;
        }
    }

    /// Puts a file there; another name of `inode`, whose attributes are then those of the last name, or a new one.
    fn put(&mut self, path: &str, node: Node, inode: Option<usize>) -> usize {
        self.inodes += 1;
        let inode = inode.unwrap_or(self.inodes);
        let same: Vec<String> = self
            .files
            .iter()
            .filter(|(have, known)| known.inode == inode && *have != path)
            .map(|(have, _)| have.clone())
            .collect();
        let names = same.len() as u32 + 1;
        for name in same {
            let known = self.files.get_mut(&name).unwrap();
            (known.node.mode, known.node.mtime, known.names) = (node.mode, node.mtime, names);
        }
        self.files.insert(path.to_owned(), Known { node, inode, names });
        inode
    }

    /// What is to be seen. Below an overlay a file keeps the number of names that its layer gave it.
    fn shown(&self, overlay: bool) -> BTreeMap<String, Shown> {
        let mut names: HashMap<usize, (u32, String)> = HashMap::new();
        for (path, known) in &self.files {
            names.entry(known.inode).or_insert((0, format!("/{path}"))).0 += 1;
        }
        let show = |(path, known): (&String, &Known)| {
            let Known { node: Node { kind, mode, mtime, bytes, .. }, inode, names: of_layer } = known;
            let (count, first) = &names[inode];
            let nlink = if overlay { *of_layer } else { *count };
            let shown =
                Shown { kind: *kind, mode: *mode, mtime: *mtime, nlink, bytes: bytes.clone(), first: first.clone() };
            (format!("/{path}"), shown)
        };
        self.files.iter().map(show).collect()
    }
}

/// A layer of which everybody agrees what it means: it names each path once, gives parents before children, or leaves
/// them out where nobody can be in doubt about them, and deletes nothing that it makes.
#[derive(Debug, Default)]
struct Sane {
    nodes: Vec<(String, Node)>,
    whiteouts: Vec<String>,
    opaque: Vec<String>,
    /// Directories that no member describes, and their mode.
    implied: Vec<(String, u16)>,
    /// Whether it may have such.
    implies: bool,
}

impl Sane {
    fn new(ops: &[Op], implies: bool, lower: &Oracle) -> Sane {
        let mut layer = Sane { implies, ..Sane::default() };
        for op in ops {
            match op {
                Op::Add(path, node) => layer.add(path, node, lower),
                Op::Link(path, which, mode, mtime) => {
                    let files: Vec<&(String, Node)> = layer.nodes.iter().filter(|(_, n)| n.kind != Type::Dir).collect();
                    if !files.is_empty() {
                        let (target, node) = files[which % files.len()].clone();
                        let mode = if node.kind == Type::Symlink { 0o777 } else { *mode };
                        layer.add(path, &Node { mode, mtime: *mtime, link: Some(target), ..node }, lower);
                    }
                }
                Op::Whiteout(path) => {
                    let free = layer.free(path) && !layer.nodes.iter().any(|(n, _)| under(n, path));
                    if free && !layer.whiteouts.iter().any(|w| under(w, path)) && layer.parents(path, lower) {
                        layer.whiteouts.push(path.clone());
                    }
                }
                Op::Opaque(path) if !layer.implies => {
                    layer.add(path, &directory(0o755), lower);
                    if layer.kind(path) == Some(Type::Dir) && !layer.opaque.contains(path) {
                        layer.opaque.push(path.clone());
                    }
                }
                Op::Opaque(_) => {}
            }
        }
        layer
    }

    fn kind(&self, path: &str) -> Option<Type> {
        let made = self.nodes.iter().find(|(have, _)| have == path).map(|(_, node)| node.kind);
        made.or_else(|| self.implied.iter().any(|(dir, _)| dir == path).then_some(Type::Dir))
    }

    fn free(&self, path: &str) -> bool {
        self.kind(path).is_none() && !self.whiteouts.iter().any(|w| w == path || under(path, w))
    }

    /// Whether a member can be put at `path`: its parents are made, or implied.
    fn parents(&mut self, path: &str, lower: &Oracle) -> bool {
        if above(path).any(|dir| self.kind(dir).is_some_and(|kind| kind != Type::Dir)) {
            return false;
        }
        // One that is implied takes after the one below; where that is gone, or was something else, opinions differ.
        let clear = |dir: &str| match lower.files.get(dir) {
            Some(known) => known.node.kind == Type::Dir && lower.ever[dir],
            None => !lower.ever.contains_key(dir),
        };
        let implied = self.implies && above(path).all(clear);
        for dir in above(path) {
            match self.kind(dir) {
                Some(_) => {}
                None if implied => {
                    let mode = lower.files.get(dir).map_or(IMPLIED, |known| known.node.mode);
                    self.implied.push((dir.into(), mode));
                }
                None => self.nodes.push((dir.into(), directory(0o711))),
            }
        }
        true
    }

    fn add(&mut self, path: &str, node: &Node, lower: &Oracle) {
        let blocked = self.whiteouts.iter().any(|w| under(w, path)) || !self.free(path);
        if !blocked && self.parents(path, lower) {
            self.nodes.push((path.to_owned(), node.clone()));
        }
    }

    fn archive(&self) -> Vec<u8> {
        let member = |(path, node): &(String, Node)| {
            let member = match (&node.link, node.kind) {
                (Some(target), _) => h(path, target),
                (None, Type::Dir) => d(format!("{path}/")),
                (None, Type::Symlink) => s(path, &node.bytes),
                (None, _) => f(path, &node.bytes),
            };
            member.mode(u64::from(node.mode)).mtime(node.mtime)
        };
        let mut members: Vec<Member> = self.nodes.iter().map(member).collect();
        members.extend(self.whiteouts.iter().map(|path| {
            let cut = path.rfind('/').map_or(0, |at| at + 1);
            f(format!("{}.wh.{}", &path[..cut], &path[cut..]), "")
        }));
        members.extend(self.opaque.iter().map(|path| f(format!("{path}/.wh..wh..opq"), "")));
        tar(&members)
    }

    /// Unpacks it as the overlayfs snapshotter does; in a base layer there is nothing to hide.
    fn unpack(&self, dir: &Path, base: bool) {
        for (path, node) in &self.nodes {
            let at = dir.join(path);
            above(path).for_each(|parent| fs::create_dir_all(dir.join(parent)).unwrap());
            match (&node.link, node.kind) {
                (Some(target), _) => fs::hard_link(dir.join(target), &at).unwrap(),
                (None, Type::Dir) => fs::create_dir_all(&at).unwrap(),
                (None, Type::Symlink) => symlink(str::from_utf8(&node.bytes).unwrap(), &at).unwrap(),
                (None, _) => fs::write(&at, &node.bytes).unwrap(),
            }
            if node.kind != Type::Symlink {
                fs::set_permissions(&at, Permissions::from_mode(node.mode.into())).unwrap();
            }
        }
        for path in &self.whiteouts {
            above(path).for_each(|parent| fs::create_dir_all(dir.join(parent)).unwrap());
            let at = CString::new(dir.join(path).to_str().unwrap()).unwrap();
            // SAFETY: the path is a C string.
            assert!(base || unsafe { libc::mknod(at.as_ptr(), libc::S_IFCHR, 0) } == 0, "mknod c 0 0 needs Linux 5.8");
        }
        for (path, mode) in &self.implied {
            fs::set_permissions(dir.join(path), Permissions::from_mode((*mode).into())).unwrap();
        }
        for path in self.opaque.iter().filter(|_| !base) {
            let at = CString::new(dir.join(path).to_str().unwrap()).unwrap();
            // SAFETY: both are C strings, and the value has the length that is told.
            let answer =
                unsafe { libc::setxattr(at.as_ptr(), c"user.overlay.opaque".as_ptr(), c"y".as_ptr().cast(), 1, 0) };
            assert_eq!(answer, 0, "the file system of {dir:?} must have user xattrs");
        }
        for (path, node) in &self.nodes {
            let at = CString::new(dir.join(path).to_str().unwrap()).unwrap();
            let time = libc::timespec { tv_sec: node.mtime, tv_nsec: 0 };
            // SAFETY: the path is a C string, and there are two times.
            let answer = unsafe {
                libc::utimensat(libc::AT_FDCWD, at.as_ptr(), [time, time].as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
            };
            assert_eq!(answer, 0);
        }
    }
}

/// The layers that some operations make, and what they come to.
fn chain(ops: &[(Vec<Op>, bool)]) -> (Vec<Sane>, Oracle) {
    let (mut layers, mut oracle) = (Vec::new(), Oracle::default());
    for (ops, implies) in ops {
        let layer = Sane::new(ops, *implies, &oracle);
        oracle.apply(&layer);
        layers.push(layer);
    }
    (layers, oracle)
}

fn layers() -> impl Strategy<Value = Vec<(Vec<Op>, bool)>> {
    prop::collection::vec((prop::collection::vec(op(), 0..12), any::<bool>()), 1..5)
}

fn tars(layers: &[Vec<Entry>]) -> Vec<TarLayer<'_>> {
    layers.iter().zip(DIGESTS).map(|(entries, digest)| TarLayer { digest, entries }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn archives_give_what_the_oracle_gives(ops in layers()) {
        let (layers, oracle) = chain(&ops);
        let archives: Vec<Vec<u8>> = layers.iter().map(Sane::archive).collect();
        let entries: Vec<Vec<Entry>> = archives.iter().map(|archive| entries(archive)).collect();
        let tars = tars(&entries);
        prop_assert_eq!(&walk(&CHAIN().native(&tars).unwrap(), &archives).0, &oracle.shown(false));
        let chain: Vec<ChainLayer> = tars.iter().map(|&tar| ChainLayer::Tar(tar)).collect();
        let overlay = CHAIN().overlay(&chain).unwrap();
        prop_assert_eq!(&walk(&overlay, &archives).0, &oracle.shown(true));
        every_file_shows_or_is_hidden(&overlay, &tars);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn which_layers_are_unpacked_cannot_be_seen(ops in layers(), unpacked in any::<[bool; 4]>()) {
        let (layers, oracle) = chain(&ops);
        let archives: Vec<Vec<u8>> = layers.iter().map(Sane::archive).collect();
        let entries: Vec<Vec<Entry>> = archives.iter().map(|archive| entries(archive)).collect();
        let tars = tars(&entries);
        let all: Vec<ChainLayer> = tars.iter().map(|&tar| ChainLayer::Tar(tar)).collect();
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dirs: Vec<_> = (0..layers.len()).map(|number| scratch.path().join(number.to_string())).collect();
        let mut mixed = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            if !unpacked[number] {
                mixed.push(ChainLayer::Tar(tars[number]));
                continue;
            }
            fs::create_dir(&dirs[number]).unwrap();
            layer.unpack(&dirs[number], number == 0);
            mixed.push(ChainLayer::Unpacked(UnpackedLayer { digest: DIGESTS[number], path: &dirs[number], user_xattr: true, begun: None }));
        }
        let (shown, identities) = walk(&CHAIN().build(&mixed).unwrap(), &archives);
        prop_assert_eq!(&shown, &oracle.shown(true));
        prop_assert_eq!(identities, walk(&CHAIN().build(&all).unwrap(), &archives).1);
    }
}

/// What a layer has is seen in the merge, or told as hidden, and never both.
fn every_file_shows_or_is_hidden(rootfs: &Rootfs, tars: &[TarLayer]) {
    let mut hidden: Vec<Hidden> = Vec::new();
    rootfs
        .hidden(&mut |item| {
            hidden.push(item);
            Ok(())
        })
        .unwrap();
    for (number, &tar) in tars.iter().enumerate() {
        let alone = CHAIN().alone(tar).unwrap();
        each(&alone, &mut |path, handle| {
            let name = path.rsplit('/').next().unwrap();
            if alone.attr(handle).unwrap().kind == Type::Dir || name.starts_with(".wh.") {
                return;
            }
            let shown =
                rootfs.walk(path.as_bytes()).unwrap().is_some_and(|(h, _)| rootfs.layer_of(&h).unwrap() == number);
            let told = hidden.iter().any(|item| {
                let hides = str::from_utf8(&item.path).unwrap();
                item.layer == number && (hides == path || under(path, hides))
            });
            assert!(shown != told, "layer {number} {path}: shown {shown}, hidden {told}");
        });
    }
}

/// The generator makes what the oracle is for: else a test that passes says little.
#[test]
fn the_layers_are_not_too_sane() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut counts = [0; 7];
    for _ in 0..300 {
        let ops = layers().new_tree(&mut runner).unwrap().current();
        let mut oracle = Oracle::default();
        for (ops, implies) in &ops {
            let layer = Sane::new(ops, *implies, &oracle);
            let have = |path: &String| oracle.files.get(path).map(|known| known.node.kind);
            let removes = |path: &&String| have(path).is_some();
            let filled = |path: &&String| oracle.files.keys().any(|have| under(have, path));
            let implied = layer.implied.iter().map(|(path, _)| path);
            counts[0] += layer.whiteouts.iter().filter(removes).count();
            counts[1] += layer.opaque.iter().filter(filled).count();
            counts[2] += layer.nodes.iter().filter(|(_, node)| node.link.is_some()).count();
            let changed = |(path, node): &&(String, Node)| have(path).is_some_and(|kind| kind != node.kind);
            counts[3] += layer.nodes.iter().filter(changed).count();
            counts[4] += implied.clone().filter(removes).count();
            counts[5] += implied.filter(|path| have(path).is_none()).count();
            let halved = oracle.files.values().filter(|known| known.names > 1).count();
            counts[6] += usize::from(halved > 0 && !layer.whiteouts.is_empty());
            oracle.apply(&layer);
        }
    }
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}
