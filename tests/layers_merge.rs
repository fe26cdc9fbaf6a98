//! The merge against an oracle that applies layers to a map, and against itself.

mod support;

use ctrfs::layers::Entry;
use ctrfs::layers::hidden::Hidden;
use ctrfs::layers::merge::{Chain, ChainLayer, Handle, Identity, Rootfs, Source, TarLayer};
use ctrfs::layers::tar::Parser;
use ctrfs::layers::tree::Type;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use support::tarball::*;

fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut parser = Parser::new();
    parser
        .push(archive, &mut |entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
    parser.finish().unwrap();
    entries
}

const CHAIN: fn() -> Chain = || Chain { created: (TIME, 0), ..Chain::default() };
const DIGESTS: [&str; 6] = ["sha256:0", "sha256:1", "sha256:2", "sha256:3", "sha256:4", "sha256:5"];

fn tars(layers: &[Vec<Entry>]) -> Vec<TarLayer<'_>> {
    layers.iter().zip(DIGESTS).map(|(entries, digest)| TarLayer { digest, entries }).collect()
}

fn chain<'a>(tars: &[TarLayer<'a>]) -> Vec<ChainLayer<'a>> {
    tars.iter().map(|&tar| ChainLayer::Tar(tar)).collect()
}

/// What a file is, for the oracle: its type, its mode, and its content, or where it points.
type Node = (Type, u16, Vec<u8>);

fn walk(rootfs: &Rootfs, archives: &[Vec<u8>]) -> BTreeMap<String, Node> {
    let mut all = BTreeMap::new();
    each(rootfs, &mut |path, handle| {
        let attr = rootfs.attr(handle).unwrap();
        let bytes = match attr.kind {
            Type::File => match rootfs.source(handle).unwrap() {
                Source::Archive { layer, data, size, .. } => archives[layer][data as usize..][..size as usize].to_vec(),
                Source::File { .. } => unreachable!("there are only archives"),
            },
            Type::Symlink => rootfs.readlink(handle).unwrap(),
            _ => Vec::new(),
        };
        all.insert(path.into(), (attr.kind, attr.perm, bytes));
    });
    all
}

/// Calls `f` for each path, and checks that lookups agree with listings.
fn each(rootfs: &Rootfs, f: &mut dyn FnMut(&str, &Handle)) {
    let mut dirs = vec![(String::new(), rootfs.root())];
    while let Some((path, dir)) = dirs.pop() {
        let mut seen = std::collections::HashSet::new();
        for (name, handle, attr) in rootfs.readdir(&dir).unwrap() {
            assert!(seen.insert(name.clone()), "{path} lists {name:?} twice");
            let (_, found) = rootfs.lookup(&dir, &name).unwrap().expect("no ghosts");
            assert_eq!(found, attr);
            let path = format!("{path}/{}", String::from_utf8(name).unwrap());
            f(&path, &handle);
            if attr.kind == Type::Dir {
                dirs.push((path, handle));
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Add(Vec<u8>, Node),
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| parts.join("/").into_bytes())
}

fn op() -> impl Strategy<Value = Op> {
    let mode = prop::sample::select(vec![0o755u16, 0o700, 0o644]);
    let kind = prop::sample::select(vec![Type::File, Type::File, Type::Dir, Type::Dir, Type::Symlink]);
    prop_oneof![
        4 => (path(), kind, mode, "[xyz]{1,3}").prop_map(|(path, kind, mode, text)| {
            let mode = if kind == Type::Symlink { 0o777 } else { mode };
            let bytes = if kind == Type::Dir { Vec::new() } else { text.into_bytes() };
            Op::Add(path, (kind, mode, bytes))
        }),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| &path[..i])
}

fn under(path: &[u8], dir: &[u8]) -> bool {
    path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/'
}

/// A layer of which everybody agrees what it means: it names each path once, gives parents before children, and deletes
/// nothing that it makes.
#[derive(Debug, Default)]
struct Sane {
    nodes: Vec<(Vec<u8>, Node)>,
    whiteouts: Vec<Vec<u8>>,
    opaque: Vec<Vec<u8>>,
}

impl Sane {
    fn new(ops: &[Op]) -> Sane {
        let mut layer = Sane::default();
        for op in ops {
            match op {
                Op::Add(path, node) => layer.add(path, node),
                Op::Whiteout(path) => {
                    let free = layer.free(path) && !layer.nodes.iter().any(|(n, _)| under(n, path));
                    if free && !layer.whiteouts.iter().any(|w| under(w, path)) && layer.parents(path) {
                        layer.whiteouts.push(path.clone());
                    }
                }
                Op::Opaque(path) => {
                    layer.add(path, &(Type::Dir, 0o755, Vec::new()));
                    if layer.kind(path) == Some(Type::Dir) && !layer.opaque.contains(path) {
                        layer.opaque.push(path.clone());
                    }
                }
            }
        }
        layer
    }

    fn kind(&self, path: &[u8]) -> Option<Type> {
        self.nodes.iter().find(|(have, _)| have == path).map(|(_, node)| node.0)
    }

    fn free(&self, path: &[u8]) -> bool {
        self.kind(path).is_none() && !self.whiteouts.iter().any(|w| w == path || under(path, w))
    }

    fn parents(&mut self, path: &[u8]) -> bool {
        if above(path).any(|dir| self.kind(dir).is_some_and(|kind| kind != Type::Dir)) {
            return false;
        }
        for dir in above(path) {
            if self.kind(dir).is_none() {
                self.nodes.push((dir.to_vec(), (Type::Dir, 0o711, Vec::new())));
            }
        }
        true
    }

    fn add(&mut self, path: &[u8], node: &Node) {
        let blocked = self.whiteouts.iter().any(|w| under(w, path)) || !self.free(path);
        if !blocked && self.parents(path) {
            self.nodes.push((path.to_vec(), node.clone()));
        }
    }

    fn archive(&self) -> Vec<u8> {
        let marked = |path: &[u8], name: &[u8]| [path, name].concat();
        let mut members: Vec<Member> = self
            .nodes
            .iter()
            .map(|(path, (kind, mode, bytes))| match kind {
                Type::Dir => d(marked(path, b"/")).mode(u64::from(*mode)),
                Type::Symlink => s(path, bytes),
                _ => f(path, bytes).mode(u64::from(*mode)),
            })
            .collect();
        for path in &self.whiteouts {
            let cut = path.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
            members.push(f([&path[..cut], b".wh.", &path[cut..]].concat(), ""));
        }
        members.extend(self.opaque.iter().map(|path| f(marked(path, b"/.wh..wh..opq"), "")));
        tar(&members)
    }

    /// The oracle: what the layer does to a map.
    fn apply(&self, map: &mut BTreeMap<String, Node>) {
        let text = |path: &[u8]| format!("/{}", String::from_utf8(path.to_vec()).unwrap());
        for path in &self.whiteouts {
            let path = text(path);
            map.retain(|have, _| *have != path && !have.starts_with(&format!("{path}/")));
        }
        for path in &self.opaque {
            let path = text(path);
            map.retain(|have, _| !have.starts_with(&format!("{path}/")));
        }
        for (path, node) in &self.nodes {
            let path = text(path);
            if node.0 != Type::Dir || map.get(&path).is_some_and(|have| have.0 != Type::Dir) {
                map.retain(|have, _| !have.starts_with(&format!("{path}/")));
            }
            map.insert(path, node.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn sane_layers_give_what_the_oracle_gives(ops in prop::collection::vec(prop::collection::vec(op(), 0..12), 1..5)) {
        let layers: Vec<Sane> = ops.iter().map(|ops| Sane::new(ops)).collect();
        let archives: Vec<Vec<u8>> = layers.iter().map(Sane::archive).collect();
        let mut map = BTreeMap::new();
        for layer in &layers {
            layer.apply(&mut map);
        }
        let entries: Vec<Vec<Entry>> = archives.iter().map(|archive| entries(archive)).collect();
        let tars = tars(&entries);
        prop_assert_eq!(&walk(&CHAIN().native(&tars).unwrap(), &archives), &map);
        let overlay = CHAIN().overlay(&chain(&tars)).unwrap();
        prop_assert_eq!(&walk(&overlay, &archives), &map);
        every_file_shows_or_is_hidden(&overlay, &tars);
    }

    #[test]
    fn odd_layers_give_a_tree_that_is_whole_or_an_error(
        ops in prop::collection::vec(prop::collection::vec((op(), 0..8u8), 0..12), 1..5),
    ) {
        let archives: Vec<Vec<u8>> = ops.iter().map(|ops| odd(ops)).collect();
        let entries: Vec<Vec<Entry>> = archives.iter().map(|archive| entries(archive)).collect();
        let tars = tars(&entries);
        if let Ok(rootfs) = CHAIN().build(&chain(&tars)) {
            walk(&rootfs, &archives);
            one_identity_is_one_file(&rootfs);
        }
    }
}

/// An archive of whatever came up, in any order, with links to anything.
fn odd(ops: &[(Op, u8)]) -> Vec<u8> {
    let members: Vec<Member> = ops
        .iter()
        .map(|(op, way)| match (op, way) {
            (Op::Add(path, (_, _, text)), 0) => h(path, [b"a/", &text[..]].concat()),
            (Op::Add(path, _), 1) => h(path, "b"),
            (Op::Add(path, _), 2) => s(path, "../a"),
            (Op::Add(path, _), 3) => c(path, 0, 0),
            (Op::Add(path, (Type::Dir, ..)), _) => d(path),
            (Op::Add(path, (_, _, text)), _) => f(path, text),
            (Op::Whiteout(path), _) => f([&path[..path.len() - 1], b".wh.", &path[path.len() - 1..]].concat(), ""),
            (Op::Opaque(path), _) => f([path, &b"/.wh..wh..opq"[..]].concat(), ""),
        })
        .collect();
    tar(&members)
}

fn one_identity_is_one_file(rootfs: &Rootfs) {
    let mut known: HashMap<Identity, (u64, u32)> = HashMap::new();
    each(rootfs, &mut |path, handle| {
        let attr = rootfs.attr(handle).unwrap();
        if attr.kind != Type::File {
            return;
        }
        let Source::Archive { data, entry, .. } = rootfs.source(handle).unwrap() else { return };
        let file = (data, entry);
        assert_eq!(*known.entry(rootfs.identity(handle).unwrap()).or_insert(file), file, "{path}");
    });
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
                item.layer == number && (item.path == path.as_bytes() || under(path.as_bytes(), &item.path))
            });
            assert!(shown != told, "layer {number} {path}: shown {shown}, hidden {told}");
        });
    }
}

#[test]
fn two_images_that_share_a_layer_give_its_files_one_identity() {
    let shared = entries(&tar(&[f("lib/a", "1"), h("lib/b", "lib/a")]));
    let (base, other) = (entries(&tar(&[f("etc/x", "x")])), entries(&tar(&[f("lib/c", "c")])));
    let layer = |digest, entries| ChainLayer::Tar(TarLayer { digest, entries });
    let one = CHAIN().build(&[layer("sha256:s", &shared), layer("sha256:o", &other)]).unwrap();
    let two = CHAIN().build(&[layer("sha256:b", &base), layer("sha256:s", &shared)]).unwrap();
    let identity = |rootfs: &Rootfs, path: &str| {
        let (handle, _) = rootfs.walk(path.as_bytes()).unwrap().unwrap();
        rootfs.identity(&handle).unwrap()
    };
    assert_eq!(identity(&one, "/lib/b"), identity(&two, "/lib/a"));
    assert_eq!(identity(&one, "/lib/b"), Identity { layer: "sha256:s".into(), path: b"/lib/a".to_vec() });
}

#[test]
fn a_removed_first_name_passes_the_identity_on() {
    let only = entries(&tar(&[f("a", "1"), h("b", "a"), f("a", "2")]));
    let rootfs = CHAIN().build(&[ChainLayer::Tar(TarLayer { digest: "sha256:0", entries: &only })]).unwrap();
    one_identity_is_one_file(&rootfs);
    let (b, _) = rootfs.walk(b"/b").unwrap().unwrap();
    assert_eq!(rootfs.identity(&b).unwrap().path, b"/b");
}

#[test]
fn a_layer_alone_shows_its_whiteouts_by_name() {
    let upper =
        entries(&tar(&[f("d/.wh.a", ""), f("d/.wh..wh..opq", ""), h("gone", "lower"), f("x", "x"), f("x", "y")]));
    let rootfs = CHAIN().alone(TarLayer { digest: "sha256:0", entries: &upper }).unwrap();
    let mut paths = Vec::new();
    each(&rootfs, &mut |path, _| paths.push(path.to_string()));
    paths.sort();
    assert_eq!(paths, ["/d", "/d/.wh..wh..opq", "/d/.wh.a", "/x"]);
}

#[test]
fn listings_are_in_the_order_of_the_archive() {
    let only = entries(&tar(&[f("z", ""), f("m", ""), f("a", ""), f("m2", "")]));
    let rootfs = CHAIN().build(&[ChainLayer::Tar(TarLayer { digest: "sha256:0", entries: &only })]).unwrap();
    let names: Vec<Vec<u8>> = rootfs.readdir(&rootfs.root()).unwrap().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [&b"z"[..], b"m", b"a", b"m2"]);
}
