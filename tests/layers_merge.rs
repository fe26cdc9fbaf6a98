//! The merge against itself: whatever the layers are, it gives a tree that is whole, or an error.

mod support;

use ctrfs::layers::Entry;
use ctrfs::layers::merge::{ChainLayer, Identity, Rootfs, Source, TarLayer};
use ctrfs::layers::tree::Type;
use proptest::prelude::*;
use std::collections::HashMap;
use support::merged::{CHAIN, DIGESTS, each, entries, walk};
use support::tarball::*;

fn tars(layers: &[Vec<Entry>]) -> Vec<TarLayer<'_>> {
    layers.iter().zip(DIGESTS).map(|(entries, digest)| TarLayer { digest, entries }).collect()
}

fn chain<'a>(tars: &[TarLayer<'a>]) -> Vec<ChainLayer<'a>> {
    tars.iter().map(|&tar| ChainLayer::Tar(tar)).collect()
}

/// What a file is: its type and its mode, and its content, or where it points.
type Node = (Type, u16, Vec<u8>);

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

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
