//! Sections D to F: types that change, duplicates, hard links.

use super::*;

pub fn types() -> Vec<Case> {
    let b = &base()[..];
    let linked: &[Member] = &[d("d/"), f("d/a", "x"), s("l", "d")];
    vec![
        case("file-over-dir", &[b, &[f("d", "0123456789")]], "BASE -/d/a ; -/d/b ; -/d/sub ; ~/d size 10"),
        case("dir-over-file", &[b, &[d("top/"), f("top/x", "x")]], "BASE +/top/x 'x' ; ~/top/"),
        case("dir-over-symlink", &[linked, &[d("l/"), f("l/y", "x")]], "/d/ ; /d/a 'x' ; /l/ ; /l/y 'x'"),
        case(
            "implicit-parent-symlink",
            &[
                &[d("usr/"), d("usr/lib/").mode(0o700).owner(7, 0), f("usr/lib/a", "x"), s("lib", "usr/lib")],
                &[f("lib/b", "x")],
            ],
            "/lib/ 0700, 7:0 ; /lib/b 'x' ; /usr/ ; /usr/lib/ 0700, 7:0 ; /usr/lib/a 'x'",
        )
        .native("/lib@ -> usr/lib ; /usr/ ; /usr/lib/ 0700, 7:0 ; /usr/lib/a 'x' ; /usr/lib/b 'x'"),
        case(
            "implicit-parent-symlink-same-layer",
            &[&[d("usr/lib/"), s("lib", "usr/lib"), f("lib/b", "x")]],
            "/lib@ -> usr/lib ; /usr/ ; /usr/lib/ ; /usr/lib/b 'x'",
        ),
        case("symlink-over-file", &[b, &[s("top", "etc/passwd")]], "BASE ~/top@ -> etc/passwd"),
        case(
            "file-over-symlink",
            &[&[d("etc/"), f("etc/passwd", "orig"), s("s", "etc/passwd")], &[f("s", "new")]],
            "/etc/ ; /etc/passwd 'orig' ; /s 'new'",
        ),
        case(
            "dir-merge-meta",
            &[b, &[d("d/").mode(0o700).owner(5, 6).mtime(TIME + 5)]],
            "BASE ~/d/ 0700, 5:6, mtime 1700000005",
        ),
        case(
            "dir-xattr-dropped",
            &[&[d("d/").xattr("user.k", "v"), f("d/a", "x")], &[d("d/").mode(0o700)]],
            "/d/ 0700 ; /d/a 'x'",
        )
        .native("/d/ 0700, xattr user.k=76 ; /d/a 'x'"),
        case("dir-over-symlink-same-layer", &[&[d("t/"), s("s", "t"), d("s/"), f("s/x", "x")]], "/s/ ; /s/x 'x' ; /t/"),
        case(
            "symlink-parent-replaced",
            &[&[f("foo/tmp/f", "1"), s("foo", "/"), f("foo/tmp/f", "2"), d("foo/"), f("foo/tmp/f", "3")]],
            "/foo/ ; /foo/tmp/ ; /foo/tmp/f '3' ; /tmp/ ; /tmp/f '2'",
        ),
        // Two implied levels below a file: the lookup in the lower layer fails, and so does native.
        case("implied-below-lower-file", &[b, &[f("top/x/y", "x")]], "FAILS: lstat /top/x: not a directory")
            .native("FAILS: failed to get root path: lstat /top/x: not a directory"),
    ]
}

pub fn duplicates() -> Vec<Case> {
    vec![
        case("dup-file", &[&[f("a", "1"), f("a", "two!")]], "/a 'two!'"),
        case(
            "dup-dir-meta",
            &[&[d("d/"), f("d/x", "x"), d("d/").mode(0o700).owner(3, 0).mtime(TIME + 9)]],
            "/d/ 0700, 3:0, mtime 1700000009 ; /d/x 'x'",
        ),
        case(
            "dup-dir-then-file",
            &[&[d("a/").mtime(TIME - 100), f("a/x", "x"), f("a", "f")]],
            "/a mtime 1699999900, 'f'",
        ),
        case("dup-dir-then-symlink", &[&[d("a/").mtime(TIME - 100), d("b/"), s("a", "b")]], "/a@ -> b ; /b/"),
        case(
            "dup-dir-then-symlink-after",
            &[&[d("b/"), d("a/").mtime(TIME - 100), s("a", "b")]],
            "/a@ -> b ; /b/ mtime 1699999900",
        ),
        case("dup-symlink-then-file", &[&[s("s", "t"), f("t", "orig"), f("s", "new")]], "/s 'new' ; /t 'orig'"),
    ]
}

pub fn hard_links() -> Vec<Case> {
    let two = "/a 'data', nlink 2 inode#1 ; /b 'data', nlink 2 inode#1";
    let a = || f("a", "data");
    let long = [&[b'p'; 60][..], b"/", &[b'q'; 60]].concat();
    vec![
        case("hl-basic", &[&[a(), h("b", "a")]], two),
        case(
            "hl-chain",
            &[&[a(), h("b", "a"), h("c", "b")]],
            "/a 'data', nlink 3 inode#1 ; /b 'data', nlink 3 inode#1 ; /c 'data', nlink 3 inode#1",
        ),
        case("hl-lower", &[&[a()], &[h("b", "a")]], "FAILS: link /a /b: no such file or directory").native(two),
        case("hl-lower-dup", &[&[a()], &[a(), h("b", "a")]], two),
        case("hl-whiteouted", &[&[a(), f("z", "x")], &[f(".wh.a", ""), h("b", "a")]], "/z 'x'")
            .native("FAILS: link /a /b: no such file or directory"),
        case(
            "hl-dangling-symlink",
            &[&[s("s", "/etc/passwd"), h("h", "s"), f("etc/passwd", "after")]],
            "/etc/ ; /etc/passwd 'after' ; /h@ -> /etc/passwd, nlink 2 inode#1 ; \
             /s@ -> /etc/passwd, nlink 2 inode#1",
        ),
        case("hl-dir", &[&[d("d/"), h("h", "d")]], "FAILS: link /d /h: operation not permitted"),
        case("hl-self", &[&[a(), h("a", "a")]], "FAILS: link /a /a: no such file or directory"),
        case(
            "hl-meta",
            &[&[a(), h("b", "a").mode(0o4755).owner(9, 9).mtime(TIME + 7).xattr("user.k", "v")]],
            "/a 4755, 9:9, mtime 1700000007, 'data', nlink 2 inode#1, xattr user.k=76 ; \
             /b 4755, 9:9, mtime 1700000007, 'data', nlink 2 inode#1, xattr user.k=76",
        ),
        case(
            "hl-abs",
            &[&[a(), h("b", "/a"), h("c", "./a"), h("e", "../../a")]],
            "/a 'data', nlink 4 inode#1 ; /b 'data', nlink 4 inode#1 ; /c 'data', nlink 4 inode#1 ; \
             /e 'data', nlink 4 inode#1",
        ),
        case(
            "hl-via-symlink",
            &[&[d("etc/"), f("etc/passwd", "p"), s("le", "/etc"), h("b", "le/passwd")]],
            "/b 'p', nlink 2 inode#1 ; /etc/ ; /etc/passwd 'p', nlink 2 inode#1 ; /le@ -> /etc",
        ),
        case("hl-then-wh-other", &[&[a(), h("b", "a")], &[f(".wh.a", "")]], "/b 'data', nlink 2 inode#1")
            .native("/b 'data'"),
        case(
            "hl-fifo-dev",
            &[&[member(b'6', "p"), h("h", "p"), c("null", 1, 3), h("h2", "null")]],
            "/h(fifo) 0644, nlink 2 inode#1 ; /h2(chr) 0644, 1:3, nlink 2 inode#2 ; \
             /null(chr) 0644, 1:3, nlink 2 inode#2 ; /p(fifo) 0644, nlink 2 inode#1",
        ),
        case("hl-size-nonzero", &[&[a(), h("b", "a").size(4), f("c", "x")]], &format!("{two} ; /c 'x'")),
        case(
            "hl-across-upper-replaced",
            &[&[f("a", "old"), h("b", "a")], &[f("a", "new")]],
            "/a 'new' ; /b 'old', nlink 2 inode#1",
        )
        .native("/a 'new' ; /b 'old'"),
        case(
            "hl-long-linkname-pax",
            &[&[f(&long, "long"), f([b'n'; 90], "q"), h("b", &long)]],
            "/b 'long', nlink 2 inode#1 ; /n{90} 'q' ; /p{60}/ ; /p{60}/q{60} 'long', nlink 2 inode#1",
        ),
        case("hl-slash", &[&[a(), h("b", "a/")]], two),
        case("hl-empty-linkname", &[&[a(), h("b", "")]], "FAILS: link / /b: operation not permitted"),
        // The link's header has no capability: its chown took it from the shared file.
        case("hl-capability-lost", &[&[a().xattr("security.capability", capability()), h("b", "a")]], two),
    ]
}

fn capability() -> Vec<u8> {
    [&[1, 0, 0, 2][..], &[0; 16]].concat()
}
