//! Texts that take a call: what the kernel keeps of them, and that nobody sees what was true once.

use crate::common::{World, eventually, images, oci};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// An image that the test points elsewhere.
const MOVED: &str = "docker.io/library/moved:1";

/// What reading the file at `path` ten times asks for: (lookups, stats, opens, reads, closes).
fn asked(world: &World, path: &str) -> [u64; 5] {
    let path = world.mount().at_path(&world.path(path));
    // To read the counters asks for something, too: as often with as without.
    let requests = || world.mount().requests();
    let counts = [requests(), requests(), {
        (0..10).for_each(|_| assert!(!std::fs::read(&path).unwrap().is_empty()));
        requests()
    }];
    let more = |n: usize, name: &str| counts[n + 1][name] - counts[n][name];
    ["lookup", "getattr", "open", "read", "release"].map(|name| more(1, name).saturating_sub(more(0, name)))
}

/// Keeps so much going that changes are promised to be told, until `done`.
fn while_busy(world: &World, what: &str, dir: &str, mut done: impl FnMut() -> bool) {
    eventually(what, Duration::from_secs(25), || {
        for _ in 0..20 {
            assert!(!world.ls(dir).is_empty() && !world.ls("blobs/sha256").is_empty());
            std::thread::sleep(Duration::from_millis(10));
        }
        done()
    });
}

fn length(world: &World, path: &str) -> u64 {
    std::fs::metadata(world.mount().at_path(&world.path(path))).unwrap().size()
}

/// The directory of an image of two that a test can change, and the other.
fn two_images(world: &World) -> (String, String, String) {
    let (tiny, other) = (world.tiny(), "docker.io/library/chart:1");
    let (layout, manifest) = images::artifact();
    layout.store(&world.containerd, &world.namespace, other, &manifest);
    world.ctr(&["images", "tag", tiny, MOVED]);
    let dir = format!("images/{MOVED}");
    eventually("the images are here", Duration::from_secs(2), || {
        world.exists(&dir) && world.exists(&format!("images/{other}"))
    });
    (dir, tiny.to_owned(), other.to_owned())
}

/// A text whose changes are told is read out of the page cache, and shows no more what was once true than any other: not
/// what it was before an event, not what it was before content went, whoever has it open.
fn kept_until_told(world: &World) {
    let (dir, tiny, other) = two_images(world);
    let (size, local) = (format!("{dir}/size"), format!("{dir}/local_size"));
    assert!(world.sh(&format!("ls -lR '{dir}/'"), 20).ok().contains(" 4096 "), "nobody has rendered it");
    assert_eq!((length(world, &size), length(world, &local)), (4096, 4096), "nor does stat");
    while_busy(world, "the kernel reads it by itself", &dir, || {
        [&size, &local].iter().all(|path| asked(world, path) == [0, 0, 10, 0, 10])
    });
    let first = world.read(&size);
    assert_eq!(world.value(&format!("images/{tiny}/size")), first.trim_end());
    tools(world, &size, &first);
    // Pages can be shared, too.
    let shared =
        "python3 -c 'import mmap, sys; f = open(sys.argv[1]); mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:]' ";
    world.sh(&format!("{shared}'{size}'"), 10).ok();
    // It is pointed elsewhere, while somebody has it open.
    let second = world.read(&format!("images/{other}/size"));
    assert_ne!(first, second);
    let mut open = std::fs::File::open(world.mount().at_path(&world.path(&size))).unwrap();
    world.containerd.rpc().point_image(&world.namespace, MOVED, &other);
    let took = eventually("the new size is here", Duration::from_millis(500), || world.read(&size) == second);
    println!("seen after {took:?}");
    for _ in 0..3 {
        let mut text = String::new();
        open.rewind().unwrap();
        open.read_to_string(&mut text).unwrap();
        assert_eq!((&text, &world.read(&size)), (&first, &second));
    }
    drop(open);
    eventually("nobody has it open", Duration::from_millis(500), || length(world, &size) == second.len() as u64);
    tools(world, &size, &second);
    // And back, with nobody there.
    world.containerd.rpc().point_image(&world.namespace, MOVED, &tiny);
    eventually("the first size is back", Duration::from_millis(500), || world.read(&size) == first);
    while_busy(world, "it is kept again", &dir, || asked(world, &size) == [0, 0, 10, 0, 10]);
    tools(world, &size, &first);
    content_goes(world, &dir, &local);
}

/// What goes without an event is seen about a second later.
fn content_goes(world: &World, dir: &str, local: &str) {
    while_busy(world, "it is kept again", dir, || asked(world, local) == [0, 0, 10, 0, 10]);
    let whole: u64 = world.value(local).parse().unwrap();
    let config = world.json(&format!("{dir}/manifest.json"))["config"].clone();
    world.ctr(&["content", "rm", config["digest"].as_str().unwrap()]);
    let left = format!("{}\n", whole - config["size"].as_u64().unwrap());
    eventually("less is here", Duration::from_secs(3), || world.read(local) == left);
    eventually("stat says so", Duration::from_secs(2), || length(world, local) == left.len() as u64);
    tools(world, local, &left);
}

/// However it is read it is the same.
fn tools(world: &World, path: &str, text: &str) {
    let last = &text[text.len() - 3..];
    let mapped = "python3 -c 'import mmap, sys; f = open(sys.argv[1], \"rb\"); \
                  sys.stdout.write(mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[:].decode())'";
    for (tool, answer) in [
        ("cat", text.to_owned()),
        ("busybox cat", text.to_owned()),
        ("dd status=none bs=1 if=", text.to_owned()),
        ("tail -c 3", last.to_owned()),
        ("head -c 1", text[..1].to_owned()),
        ("wc -c <", format!("{}\n", text.len())),
        ("stat -c %s", format!("{}\n", text.len())),
        (mapped, text.to_owned()),
    ] {
        let space = if tool.ends_with('=') { "" } else { " " };
        assert_eq!(world.sh(&format!("{tool}{space}'{path}'"), 10).ok(), answer, "{tool}");
    }
}

/// What a text is made of that nobody promises to tell of is asked for each time.
fn not_kept(world: &World) {
    let (dir, ..) = two_images(world);
    let path = format!("{dir}/size");
    while_busy(world, "the kernel reads it by itself", &dir, || asked(world, &path) == [0, 0, 10, 0, 10]);
    // Of snapshots nobody tells, and of blobs not where a layer is missing.
    let [_, stats, opens, reads, _] = asked(world, &format!("{dir}/check"));
    assert!(stats >= 10 && opens == 10 && reads >= 20, "{stats} {opens} {reads}");
    let layer = world.json(&format!("{dir}/manifest.json"))["layers"][0]["digest"].as_str().unwrap().to_owned();
    world.ctr(&["content", "rm", &layer]);
    eventually("the layer is gone", Duration::from_secs(3), || {
        !world.ls("blobs/sha256").contains(&layer[7..].to_owned())
    });
    std::thread::sleep(Duration::from_secs(1));
    let [_, _, opens, reads, _] = asked(world, &path);
    assert!(opens == 10 && reads >= 20, "{opens} {reads}");
}

/// While a text changes again and again, no reader sees anything but one of its versions, whole.
fn never_mixed(world: &World) {
    let (dir, tiny, other) = two_images(world);
    let path = format!("{dir}/size");
    while_busy(world, "the kernel reads it by itself", &dir, || asked(world, &path) == [0, 0, 10, 0, 10]);
    let texts = [world.read(&path), world.read(&format!("images/{other}/size"))];
    let file = world.mount().at_path(&world.path(&path));
    let end = std::sync::atomic::AtomicBool::new(false);
    let read = |end: &std::sync::atomic::AtomicBool| {
        let mut readings = 0;
        while !end.load(std::sync::atomic::Ordering::Relaxed) {
            let mut text = Vec::new();
            let mut open = std::fs::File::open(&file).unwrap();
            // Byte by byte, so that what is read may come from more than one look.
            let mut byte = [0];
            while open.read(&mut byte).unwrap() > 0 {
                text.push(byte[0]);
            }
            let text = String::from_utf8(text).unwrap();
            assert!(texts.contains(&text), "{text:?} is none of {texts:?}");
            readings += 1;
        }
        readings
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| read(&end))).collect();
        for n in 0..40 {
            let (target, text) = if n % 2 == 0 { (&other, &texts[1]) } else { (&tiny, &texts[0]) };
            world.containerd.rpc().point_image(&world.namespace, MOVED, target);
            eventually("the change is here", Duration::from_millis(500), || world.read(&path) == *text);
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        let readings: u32 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(readings > 200, "{readings} readings say little");
    });
    assert_eq!(oci::digest(world.read(&path).as_bytes()), oci::digest(texts[0].as_bytes()));
}

/// After a restart of containerd nothing is believed that was told before.
fn lost(world: &World) {
    let (dir, _, other) = two_images(world);
    let path = format!("{dir}/size");
    while_busy(world, "the kernel reads it by itself", &dir, || asked(world, &path) == [0, 0, 10, 0, 10]);
    let second = world.read(&format!("images/{other}/size"));
    // While it is not heard it changes.
    world.containerd.kill();
    world.containerd.restart();
    world.containerd.rpc().point_image(&world.namespace, MOVED, &other);
    eventually("the new size is here", Duration::from_secs(10), || world.read(&path) == second);
    eventually("stat says so", Duration::from_secs(2), || length(world, &path) == second.len() as u64);
    tools(world, &path, &second);
}

// What is collected for others would end what was promised.
crate::each_version_alone!(kept_until_told, not_kept, never_mixed, lost);
