//! Sections A to C: whiteouts, opaque directories, devices 0:0.

use super::*;

pub fn whiteouts() -> Vec<Case> {
    let wh = |name: &str| f(name, "");
    let b = &base()[..];
    let gone = "BASE -/d/a ; -/d/b ; -/d/sub";
    let new = format!("{gone} ; +/d/new 'x'");
    let bad = |name: &str| format!("FAILS: invalid whiteout name: {name}: invalid archive");
    vec![
        case("wh-file", &[b, &[wh(".wh.top")]], "BASE -/top"),
        case("wh-dir", &[b, &[wh(".wh.d")]], "BASE -/d"),
        case("wh-in-dir-noentry", &[b, &[wh("d/.wh.a")]], "BASE -/d/a"),
        case("wh-nonempty", &[b, &[f(".wh.top", "content")]], "BASE -/top"),
        case("wh-as-dirtype", &[b, &[d(".wh.d")]], "BASE -/d"),
        case("wh-as-hardlink", &[b, &[wh("d/.wh.a"), h(".wh.top", "d/.wh.a")]], "BASE -/d/a ; -/top"),
        case("wh-empty-name", &[b, &[wh(".wh.")]], &bad(".wh.")),
        case("wh-dot", &[b, &[wh(".wh..")]], &bad(".wh..")),
        case("wh-sub-dotdot", &[b, &[wh("etc/.wh...")]], &bad(".wh...")),
        case(
            "wh-meta-plnk",
            &[b, &[d(".wh..wh.plnk/"), f(".wh..wh.plnk/7.1", "z"), wh(".wh..wh.aufs")]],
            "BASE +/.wh..wh.plnk/ ; +/.wh..wh.plnk/7.1 'z'",
        ),
        case("wh-meta-file", &[b, &[wh(".wh..wh.foo"), f("k", "x")]], "BASE +/k 'x'"),
        case(
            "wh-lookalike",
            &[b, &[f(".wh", "x"), f(".whfoo", "x"), f("wh.top", "x"), f("a.wh.b", "x")]],
            "BASE +/.wh 'x' ; +/.whfoo 'x' ; +/a.wh.b 'x' ; +/wh.top 'x'",
        ),
        case("wh-newdir", &[b, &[d("n/"), wh("n/.wh.x"), f("n/y", "x")]], "BASE +/n/ ; +/n/y 'x'"),
        case("wh-then-same-file", &[b, &[wh(".wh.top"), f("top", "new")]], "BASE ~/top 'new'"),
        case("wh-then-same-dir", &[b, &[wh(".wh.d"), d("d/"), f("d/new", "x")]], "BASE +/d/new 'x'").native(&new),
        case("wh-then-implicit-dir", &[b, &[wh(".wh.d"), f("d/new", "x")]], "FAILS: mkparent /d: not a directory")
            .native(&new),
        case(
            "same-dir-then-wh",
            &[b, &[d("d/"), f("d/new", "x"), wh(".wh.d")]],
            "FAILS: failed to convert whiteout file \".wh.d\": file exists",
        )
        .native("FAILS: failed call to UtimesNanoAt for /d: no such file or directory"),
        case(
            "wh-child-then-wh-parent",
            &[b, &[wh("d/.wh.a"), wh(".wh.d")]],
            "FAILS: failed to convert whiteout file \".wh.d\": file exists",
        )
        .native("BASE -/d"),
        case("wh-parent-then-wh-child", &[b, &[wh(".wh.d"), wh("d/.wh.a")]], "FAILS: mkparent /d: not a directory")
            .native(gone),
        case("base-file-then-wh", &[&[f("a", "x"), wh(".wh.a"), f("b", "x")]], "/b 'x'"),
        case(
            "base-dir-then-wh",
            &[&[d("d/"), f("d/x", "x"), wh(".wh.d"), f("b", "x")]],
            "FAILS: failed call to UtimesNanoAt for /d: no such file or directory",
        ),
        case("base-implicit-dir-then-wh", &[&[f("d/x", "x"), wh(".wh.d"), f("b", "x")]], "/b 'x'"),
        case("base-wh-only", &[&[wh(".wh.ghost"), f("b", "x")]], "/b 'x'"),
        case("three-del-recreate-file", &[b, &[wh(".wh.top")], &[f("top", "third")]], "BASE ~/top 'third'"),
        case("three-del-implicit-dir", &[b, &[wh(".wh.d")], &[f("d/y", "x")]], &format!("{gone} ; +/d/y 'x'")),
        case(
            "wh-through-symlink-parent",
            &[
                &[d("etc/"), f("etc/passwd", "p"), f("etc/hosts", "x"), s("localetc", "/etc")],
                &[wh("localetc/.wh.passwd")],
            ],
            "/etc/ ; /etc/hosts 'x' ; /etc/passwd 'p' ; /localetc/",
        )
        .native("/etc/ ; /etc/hosts 'x' ; /localetc@ -> /etc"),
        case("wh-implied-two", &[b, &[wh(".wh.d")], &[f("d/sub/y", "x")]], "FAILS: lstat /d/sub: not a directory")
            .native(&format!("{gone} ; +/d/sub/ ; +/d/sub/y 'x'")),
        case("wh-relpath", &[b, &[wh("dne/../.wh.etc")]], "BASE -/etc"),
    ]
}

pub fn opaque() -> Vec<Case> {
    let opq = |dir: &str| f(format!("{dir}.wh..wh..opq"), "");
    let b = &base()[..];
    let only_c = "BASE -/d/a ; -/d/b ; -/d/sub ; +/d/c 'x'";
    vec![
        case("opq", &[b, &[d("d/"), opq("d/"), f("d/c", "x")]], only_c),
        case("opq-last", &[b, &[f("d/c", "x"), opq("d/")]], only_c),
        case("opq-root", &[b, &[opq(""), f("n", "x")]], "BASE +/n 'x'").native("BASE -/d ; -/etc ; -/top ; +/n 'x'"),
        case("opq-root-3", &[b, &[f("mid", "x")], &[opq(""), f("n", "x")]], "BASE +/mid 'x' ; +/n 'x'")
            .native("BASE -/d ; -/etc ; -/top ; +/n 'x'"),
        case("opq-single", &[&[d("d/"), f("d/a", "x"), opq("d/"), f("d/z", "x")]], "/d/ ; /d/a 'x' ; /d/z 'x'"),
        case("opq-over-file", &[b, &[opq("top/")]], "BASE ~/top/").native("FAILS: mkparent /top: not a directory"),
        case("opq-missing-dir", &[b, &[opq("nodir/")]], "BASE +/nodir/"),
        case(
            "opq-mid",
            &[b, &[d("d/"), opq("d/"), f("d/b", "mid")], &[f("d/c", "x")]],
            "BASE -/d/a ; -/d/sub ; +/d/c 'x' ; ~/d/b 'mid'",
        ),
        case(
            "opq-then-file-over",
            &[b, &[opq("d/"), f("d", "nowfile")]],
            "BASE -/d/a ; -/d/b ; -/d/sub ; ~/d 'nowfile'",
        ),
        case("opq-dirtype", &[b, &[d("d/.wh..wh..opq/"), f("d/c", "x")]], only_c),
        case("opq-through-symlink", &[&[d("d/"), f("d/a", "x"), s("e", "d")], &[opq("e/")]], "/d/ ; /d/a 'x' ; /e/")
            .native("/d/ ; /e@ -> d"),
        case("opq-twice", &[&[d("d/"), opq("d/"), f("d/i/x", "x"), opq("d/"), f("d/z", "x")]], "/d/ ; /d/z 'x'"),
        // Base layers: what is only implied goes, with what this layer put into it.
        case("opq-implied", &[&[f("d/e/x", "x"), f("d/y", "x"), opq("d/")]], "/d/ ; /d/y 'x'"),
    ]
}

pub fn literal_devices() -> Vec<Case> {
    let b = &base()[..];
    vec![
        case("chardev00-upper", &[b, &[c("top", 0, 0)]], "BASE -/top").native("BASE ~/top(chr) 0644, 0:0"),
        case("chardev00-single", &[&[f("a", "x"), c("dev0", 0, 0)]], "/a 'x' ; /dev0(chr) 0644, 0:0"),
        case("chardev00-newdir", &[b, &[d("n/"), c("n/z", 0, 0), f("n/y", "x")]], "BASE +/n/ ; +/n/y 'x'")
            .native("BASE +/n/ ; +/n/y 'x' ; +/n/z(chr) 0644, 0:0"),
        // mknod(2) keeps 12 bits of the major.
        case("chardev-truncated", &[b, &[c("top", 4096, 0)]], "BASE -/top").native("BASE ~/top(chr) 0644, 0:0"),
    ]
}
