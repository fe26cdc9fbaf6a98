//! Sections G to K: names and paths, symlinks, metadata, xattrs, devices.

use super::*;

fn gnu(flag: u8, text: &[u8]) -> Vec<u8> {
    let mut long = member(flag, "././@LongLink");
    long.content = [text, b"\0"].concat();
    long.bytes()
}

pub fn paths() -> Vec<Case> {
    let x = |name: &str| f(name, "x");
    vec![
        case(
            "path-forms",
            &[&[x("./a/b"), x("/abs"), x("c//d"), x("e/./f"), x("g/../h")]],
            "/a/ ; /a/b 'x' ; /abs 'x' ; /c/ ; /c/d 'x' ; /e/ ; /e/f 'x' ; /h 'x'",
        ),
        case(
            "path-escape",
            &[&[x("../../esc1"), x("/../esc2"), x("x/../../../esc3")]],
            "/esc1 'x' ; /esc2 'x' ; /esc3 'x'",
        ),
        case(
            "path-root-upper",
            &[&[d("./").mode(0o700), x("a")], &[d("./").mode(0o711).owner(3, 0), x("b")]],
            "/a 'x' ; /b 'x'",
        ),
        case("path-empty", &[&[f("", "q"), x("a")]], "/a 'x'"),
        case("path-root-file", &[&[f(".", "q"), x("a")]], "/a 'x'"),
        case("path-trailing-slash-reg", &[&[f("f/", "data")]], "/f 'data'"),
        case("path-trailing-slash-v7", &[&[member(0, "dd/").mode(0o755), x("dd/x")]], "/dd/ ; /dd/x 'x'"),
        case(
            "path-nul-type",
            &[&[{
                let mut v7 = f("v7", "data");
                v7.flag = 0;
                v7
            }]],
            "/v7 'data'",
        ),
        case("path-child-of-file", &[&[x("f"), x("f/x")]], "FAILS: mkparent /f: not a directory"),
        case("path-parent-after-child", &[&[x("d/x"), d("d/").mode(0o500).owner(4, 0)]], "/d/ 0500, 4:0 ; /d/x 'x'"),
        case(
            "path-dangling-parent",
            &[&[s("s", "nowhere/deep"), x("s/x")]],
            "/nowhere/ ; /nowhere/deep/ ; /nowhere/deep/x 'x' ; /s@ -> nowhere/deep",
        ),
        case(
            "path-symlink-loop-parent",
            &[&[s("a", "b"), s("b", "a"), x("a/x")]],
            "FAILS: failed to get root path: too many links",
        ),
        case("path-symlink-updir", &[&[s("s", "../../../etc"), x("s/x")]], "/etc/ ; /etc/x 'x' ; /s@ -> ../../../etc"),
    ]
}

/// Names that do not fit into a header, or are not text.
pub fn long_names() -> Vec<Case> {
    let x = |name: &str| f(name, "x");
    let ax: &[Member] = &[x("a")];
    let long = [&[b'l'; 90][..], b"/", &[b'm'; 89]].concat();
    let deep = "abcd/".repeat(830);
    vec![
        case(
            "path-gnu-long",
            &[&[f("short", "gl").after(gnu(b'L', &long)), s("sl", "u").after(gnu(b'K', &[b't'; 60]))]],
            "/l{90}/ ; /l{90}/m{89} 'gl' ; /sl@ -> t{60}",
        ),
        case(
            "path-pax-path",
            &[&[f("short", "px").pax("path", format!("{}/{}", "é".repeat(60), "ü".repeat(60)))]],
            "/é{60}/ ; /é{60}/ü{60} 'px'",
        ),
        case("path-255", &[&[f([b'c'; 255], "c")]], "/c{255} 'c'"),
        case("path-256", &[&[f([b'c'; 256], "c")]], "FAILS: open …: file name too long"),
        case("path-4096", &[&[x(&deep)]], "FAILS: …: file name too long"),
        case(
            "path-nonutf8",
            &[&[f(b"caf\xe9", "x"), x("new\nline"), x("tab\tx"), x("back\\slash"), x("del\x7f")]],
            "/back\\slash 'x' ; /caf\\xe9 'x' ; /del\x7f 'x' ; /new\nline 'x' ; /tab\tx 'x'",
        ),
        case("path-pax-nonutf8", &[&[f("a", "1").pax("path", b"caf\xe9")]], "/caf\\xe9 '1'"),
        case("path-pax-empty", &[&[f("orig", "1").pax("path", "")]], "/orig '1'"),
        case("path-pax-dup-key", &[&[f("orig", "1").pax("path", "first").pax("path", "second")]], "/second '1'"),
        case("path-L-and-pax", &[&[f("a", "1").after(gnu(b'L', b"gnulong")).pax("path", "paxpath")]], "/gnulong '1'"),
        case("path-pax-nul", &[ax, &[f("a", "1").pax("path", b"a\0b")]], "FAILS: archive/tar: invalid tar header"),
    ]
}

pub fn symlinks() -> Vec<Case> {
    vec![
        case("sym-empty", &[&[s("s", "")]], "FAILS: symlink  /s: no such file or directory"),
        case(
            "sym-kinds",
            &[&[
                s("abs", "/etc/x"),
                s("dang", "no/where"),
                s("l1", "l2"),
                s("l2", "l1"),
                s("self", "self"),
                s("slash", "d//./e/"),
                s("up", "../../../../x"),
            ]],
            "/abs@ -> /etc/x ; /dang@ -> no/where ; /l1@ -> l2 ; /l2@ -> l1 ; /self@ -> self ; \
             /slash@ -> d//./e/ ; /up@ -> ../../../../x",
        ),
        case("sym-toolong", &[&[s("s", "y/".repeat(2100))]], "FAILS: symlink y/… /s: file name too long"),
        case("sym-size", &[&[s("s", "t").size(5), f("a", "x")]], "/a 'x' ; /s@ -> t"),
        case("sym-mode-owner", &[&[s("s", "t").owner(5, 6).mtime(TIME + 3)]], "/s@ 5:6, mtime 1700000003, -> t"),
    ]
}

pub fn metadata() -> Vec<Case> {
    let x = |name: &str| f(name, "x");
    vec![
        case(
            "meta-suid",
            &[&[
                x("su").mode(0o4755),
                x("sg").mode(0o2755).owner(5, 5),
                d("st/").mode(0o1777),
                x("both").mode(0o6711).owner(7, 0),
                x("zero").mode(0),
                x("all").mode(0o7777).owner(3, 0),
                d("sgd/").mode(0o2775),
                x("sgd/child"),
            ]],
            "/all 7777, 3:0, 'x' ; /both 6711, 7:0, 'x' ; /sg 2755, 5:5, 'x' ; /sgd/ 2775 ; /sgd/child 'x' ; \
             /st/ 1777 ; /su 4755, 'x' ; /zero 0000, 'x'",
        ),
        case(
            "meta-mode-typebits",
            &[&[x("a").mode(0o100644), d("d/").mode(0o40755), x("odd").mode(0o120600)]],
            "/a 'x' ; /d/ ; /odd 0600, 'x'",
        ),
        case(
            "meta-mtime-ns10",
            &[&[x("a").pax("mtime", "1700000000.1234567899")]],
            "/a mtime 1700000000.123456789, 'x'",
        ),
        case("meta-mtime-garbage", &[&[x("a").pax("mtime", "abc")]], "FAILS: archive/tar: invalid tar header"),
        case(
            "meta-mtime-far",
            &[&[x("a").pax("mtime", "9223372037"), x("b").pax("mtime", "-5")]],
            "/a mtime 0, 'x' ; /b mtime 0, 'x'",
        ),
        case("meta-atime", &[&[x("a").pax("atime", "1800000000")]], "/a 'x'"),
        case(
            "meta-uid-big",
            &[&[
                x("b256").owner(3_000_000, 3_000_001),
                x("max").pax("uid", "4294967294").pax("gid", "4294967294"),
                x("pax").pax("uid", "2000000").pax("gid", "2000001"),
            ]],
            "/b256 3000000:3000001, 'x' ; /max 4294967294:4294967294, 'x' ; /pax 2000000:2000001, 'x'",
        ),
        case("meta-uid-minus1", &[&[x("m1").pax("uid", "4294967295").pax("gid", "-1")]], "/m1 'x'"),
        case("meta-uid-2p32", &[&[x("ov").pax("uid", "4294967301")]], "/ov 5:0, 'x'"),
        case(
            "meta-uname",
            &[&[x("a").owner(12, 13).field(265, 4, b"root".to_vec()).pax("uname", "nobody")]],
            "/a 12:13, 'x'",
        ),
        // What is made in a setgid directory has its group, where no chown follows.
        case(
            "meta-sgid-implied",
            &[&[d("s/").mode(0o2755).owner(0, 9), x("s/i/f"), x("s/m").pax("gid", "-1")]],
            "/s/ 2755, 0:9 ; /s/i/ 0:9 ; /s/i/f 'x' ; /s/m 0:9, 'x'",
        ),
    ]
}

pub fn xattrs() -> Vec<Case> {
    let x = |name: &str| f(name, "x");
    let refused =
        |path: &str, key: &str, why: &str| format!("FAILS: failed to setxattr {path:?} for key {key:?}: {why}");
    vec![
        case(
            "xattr-user",
            &[&[
                d("d/").xattr("user.d", "1"),
                x("e").xattr("user.empty", ""),
                x("f").xattr("user.x", "v").xattr("user.bin", b"a\0b\nc=d"),
            ]],
            "/d/ xattr user.d=31 ; /e 'x', xattr user.empty= ; /f 'x', xattr user.bin=6100620a633d64, xattr user.x=76",
        ),
        case(
            "xattr-symlink",
            &[&[
                s("s", "t").xattr("user.a", "1"),
                s("s2", "t").xattr("security.foo", "1"),
                member(b'6', "p").xattr("user.a", "1"),
            ]],
            "/p(fifo) 0644 ; /s@ -> t ; /s2@ -> t, xattr security.foo=31",
        ),
        case(
            "xattr-caps-bad",
            &[&[x("ping").xattr("security.capability", "bad")]],
            &refused("/ping", "security.capability", "invalid argument"),
        ),
        case(
            "xattr-trusted",
            &[&[x("f").xattr("trusted.x", "1"), x("g").xattr("trusted.overlay.opaque", "y")]],
            "/f 'x' ; /g 'x'",
        ),
        case(
            "xattr-acl-bad",
            &[&[x("f").xattr("system.posix_acl_access", "bad")]],
            &refused("/f", "system.posix_acl_access", "invalid argument"),
        ),
        case("xattr-name-empty", &[&[x("f").xattr("user.", "v")]], &refused("/f", "user.", "invalid argument")),
        case(
            "xattr-caps-v3",
            &[&[x("f").xattr("security.capability", [&[1, 0, 0, 3][..], &[0; 20]].concat())]],
            "/f 'x', xattr security.capability=0100000200000000000000000000000000000000",
        ),
        case("xattr-unknown-ns", &[&[x("f").xattr("foo.bar", "1")]], "/f 'x'"),
        case("xattr-libarchive", &[&[x("f").pax("LIBARCHIVE.xattr.user.x", "MQ==")]], "/f 'x'"),
        case(
            "xattr-huge",
            &[&[x("f").xattr("user.h", vec![b'h'; 70000])]],
            &refused("/f", "user.h", "argument list too long"),
        ),
        case(
            "xattr-overlay-ns",
            &[&base(), &[d("d/").xattr("user.overlay.opaque", "y"), f("d/c", "x")]],
            "BASE +/d/c 'x' ; ~/d/ xattr user.overlay.opaque=79",
        ),
        case(
            "xattr-implied",
            &[&[d("d/").xattr("user.k", "v").owner(4, 4), x("d/a")], &[x("d/b")]],
            "/d/ 4:4, xattr user.k=76 ; /d/a 'x' ; /d/b 'x'",
        ),
    ]
}

pub fn devices() -> Vec<Case> {
    vec![
        case(
            "dev-nodes",
            &[&[
                c("null", 1, 3).mode(0o666),
                member(b'4', "sda1").device(8, 1).mode(0o660).owner(0, 6),
                member(b'6', "fifo").mode(0o600),
                c("bigdev", 300, 70000),
            ]],
            "/bigdev(chr) 0644, 300:70000 ; /fifo(fifo) 0600 ; /null(chr) 0666, 1:3 ; /sda1(blk) 0660, 0:6, 8:1",
        ),
        case("dev-in-upper", &[&base(), &[c("null", 1, 3).mode(0o666)]], "BASE +/null(chr) 0666, 1:3"),
    ]
}
