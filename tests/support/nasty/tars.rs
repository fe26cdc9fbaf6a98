//! Sections L and M: the format itself, and sparse files.

use super::*;

const INVALID: &str = "FAILS: archive/tar: invalid tar header";

/// A member whose content describes others.
fn meta(flag: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut member = member(flag, name);
    member.content = content.to_vec();
    member.bytes()
}

pub fn formats() -> Vec<Case> {
    let x = |name: &str| f(name, "x");
    let ab = || open(&[x("a"), x("b")]);
    let end = vec![0; 1024];
    let join = |parts: &[&[u8]]| vec![parts.concat()];
    let mut bad_sum = tar(&[x("a"), x("b")]);
    bad_sum[1024 + 150] ^= 1;
    let mut cut = open(&[f("a", vec![b'z'; 5000])]);
    cut.truncate(512 + 2000);
    vec![
        case("fmt-type7", &[&[x("a"), member(b'7', "c")]], "FAILS: unhandled tar header type 55"),
        case("fmt-unknown-type", &[&[x("a"), member(b'Z', "c")]], "FAILS: unhandled tar header type 90"),
        raw("fmt-no-eof", vec![ab()], "/a 'x' ; /b 'x'"),
        raw("fmt-one-zero", join(&[&ab(), &[0; 512]]), "/a 'x' ; /b 'x'"),
        raw("fmt-one-zero-then-more", join(&[&ab(), &[0; 512], &ab()]), INVALID),
        raw("fmt-two-zero-then-more", join(&[&open(&[x("a")]), &end, &open(&[x("b")]), &end]), "/a 'x'"),
        raw("fmt-trailing-garbage", join(&[&open(&[x("a")]), &end, &[0xaa; 10240]]), "/a 'x'"),
        raw("fmt-truncated-data", vec![cut], "FAILS: unexpected EOF"),
        raw("fmt-truncated-header", vec![ab()[..1300].to_vec()], "FAILS: unexpected EOF"),
        raw("fmt-truncated-padding", vec![ab()[..1024 + 600].to_vec()], "/a 'x' ; /b 'x'"),
        raw("fmt-bad-checksum", vec![bad_sum], INVALID),
        raw("fmt-empty-1024", vec![end.clone()], "(empty root)"),
        raw("fmt-empty-0", vec![Vec::new()], "(empty root)"),
        case("fmt-big-size", &[&[with_size(f("f", "12345"), base256(12, 5)), x("a")]], "/a 'x' ; /f '12345'"),
        case("fmt-neg-size", &[&[with_size(f("f", ""), base256(12, -5)), x("a")]], INVALID),
        case("fmt-octal-spaces", &[&[f("f", "1").field(108, 8, b"       1".to_vec())]], "/f 1:0, '1'"),
        case(
            "fmt-header-too-long",
            &[&[x("a").pax("comment", vec![b'c'; 1 << 20])]],
            "FAILS: archive/tar: header field too long",
        ),
        case("fmt-prefix", &[&[x("b").field(345, 3, b"pre".to_vec())]], "/pre/ ; /pre/b 'x'"),
        case("fmt-v7-has-no-prefix", &[&[x("b").field(345, 3, b"pre".to_vec()).field(257, 8, vec![0; 8])]], "/b 'x'"),
    ]
}

/// PAX headers, for one member and for all.
pub fn pax() -> Vec<Case> {
    let x = |name: &str| f(name, "x");
    let evil = [record(b"path", b"evil"), record(b"uid", b"77")].concat();
    let end = vec![0; 1024];
    let join = |parts: &[&[u8]]| vec![parts.concat()];
    vec![
        raw("fmt-pax-global", join(&[&meta(b'g', "pgh", &evil), &open(&[x("a")]), &end]), "/a 'x'"),
        raw(
            "fmt-pax-global-clobber",
            join(&[&open(&[x("pgh"), x("a")]), &meta(b'g', "pgh", &record(b"uid", b"1")), &end]),
            "/a 'x'",
        ),
        raw(
            "fmt-pax-global-parent",
            join(&[&meta(b'g', "tmp/GlobalHead.1", &record(b"uid", b"1")), &open(&[x("a")]), &end]),
            "/a 'x' ; /tmp/",
        ),
        raw(
            "fmt-pax-global-directory",
            join(&[&open(&[d("k/"), x("k/x")]), &meta(b'g', "k", &record(b"uid", b"1")), &end]),
            "FAILS: failed call to UtimesNanoAt for /k: no such file or directory",
        ),
        raw(
            "fmt-pax-global-forgets",
            join(&[
                &meta(b'x', "pax", &record(b"path", b"lost")),
                &meta(b'g', "pgh", &record(b"comment", b"c")),
                &open(&[x("a")]),
                &end,
            ]),
            "/a 'x'",
        ),
        case(
            "fmt-pax-size",
            &[&[f("f", "0123456789").size(3).pax("size", "10"), x("after")]],
            "/after 'x' ; /f size 10",
        ),
        raw("fmt-pax-badrec", join(&[&meta(b'x', "pax", b"99 path=a\n"), &open(&[x("a")]), &end]), INVALID),
        raw("fmt-pax-trailing", join(&[&open(&[x("a")]), &meta(b'x', "pax", &record(b"path", b"p")), &end]), "/a 'x'"),
        raw(
            "fmt-pax-twice",
            join(&[
                &meta(b'x', "pax", &record(b"mtime", b"garbage")),
                &meta(b'x', "pax", &record(b"path", b"second")),
                &open(&[x("a")]),
                &end,
            ]),
            "/second 'x'",
        ),
    ]
}

/// A member whose size field holds these bytes.
fn with_size(mut member: Member, bytes: Vec<u8>) -> Member {
    member.size = Some(0);
    member.field(124, 12, bytes)
}

/// A sparse member by PAX records.
fn pax_sparse(name: &str, records: &[(&str, &str)], content: &[u8]) -> Member {
    records.iter().fold(f(name, content), |member, (key, value)| member.pax(format!("GNU.sparse.{key}"), value))
}

fn map_1_0(text: &str, data: &[u8]) -> Vec<u8> {
    let mut content = text.as_bytes().to_vec();
    content.resize(512, 0);
    [&content, data].concat()
}

pub fn sparse() -> Vec<Case> {
    let after = || f("after", "x");
    let one: &[(&str, &str)] = &[("major", "1"), ("minor", "0"), ("name", "hole"), ("realsize", "1073741824")];
    let small: &[(&str, &str)] = &[("major", "1"), ("minor", "0"), ("name", "s"), ("realsize", "7")];
    let map_0_1: &[(&str, &str)] =
        &[("size", "1048576"), ("numblocks", "2"), ("map", "0,3,1048570,2"), ("name", "sp01")];
    vec![
        case(
            "sparse-oldgnu",
            &[&[member(b'S', "s").field(257, 8, b"ustar  \0".to_vec())]],
            "FAILS: unhandled tar header type 83",
        ),
        case(
            "sparse-pax01",
            &[&[pax_sparse("GNUSparse/sp01", map_0_1, b"abcde"), after()]],
            "/after 'x' ; /sp01 size 1048576",
        ),
        case(
            "sparse-pax00",
            &[&[
                pax_sparse("s", &[("size", "6"), ("numblocks", "1"), ("offset", "2"), ("numbytes", "3")], b"abc"),
                after(),
            ]],
            "/after 'x' ; /s '\0\0abc\0'",
        ),
        case(
            "sparse-pax10-allhole",
            &[&[pax_sparse("GNUSparse/h", one, &map_1_0("1\n1073741824\n0\n", b"")), after()]],
            "/after 'x' ; /hole size 1073741824",
        ),
        case(
            "sparse-pax10",
            &[&[pax_sparse("GNUSparse/s", small, &map_1_0("2\n1\n2\n5\n1\n", b"abc")), after()]],
            "/after 'x' ; /s '\0ab\0\0c\0'",
        ),
        case(
            "sparse-pax-badmap",
            &[&[pax_sparse("GNUSparse/s", small, &map_1_0("2\n1\n4\n2\n1\n", b"abcde"))]],
            INVALID,
        ),
        case(
            "sparse-missing-data",
            &[&[pax_sparse("GNUSparse/s", small, &map_1_0("1\n1\n4\n", b"ab"))]],
            "FAILS: archive/tar: sparse file references non-existent data",
        ),
        case(
            "sparse-unreferenced-data",
            &[&[pax_sparse("GNUSparse/s", small, &map_1_0("1\n1\n1\n", b"ab"))]],
            "FAILS: archive/tar: sparse file contains unreferenced data",
        ),
        case("sparse-map-cut", &[&[pax_sparse("GNUSparse/s", small, b"9\n")]], "FAILS: unexpected EOF"),
    ]
}
