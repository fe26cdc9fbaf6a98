//! `events` and `events.follow`: what happened, a JSON object a line.

use crate::common::{World, eventually, teardown};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"))).collect()
}

/// Makes something happen until it is seen: the stream of events starts when the mount does, not before.
fn wait_for_stream(world: &World) {
    let mut number = 0;
    eventually("events arrive", Duration::from_secs(5), || {
        number += 1;
        world.ctr(&["namespaces", "label", &world.namespace, &format!("try={number}")]);
        std::thread::sleep(Duration::from_millis(20));
        !world.read("events").is_empty()
    });
}

/// `events` is an ordinary file: JSON lines with `seq`, time, namespace, topic and the decoded event, then its end.
fn are_a_file(world: &World) {
    wait_for_stream(world);
    let tiny = world.tiny();
    eventually("the image's event is here", Duration::from_secs(2), || world.read("events").contains("/images/create"));
    let events = parse(&world.read("events"));
    let image = events.iter().find(|event| event["topic"] == "/images/create").unwrap();
    assert_eq!(image["namespace"], world.namespace);
    assert_eq!(image["event"]["name"], tiny);
    assert!(image["timestamp"].as_str().unwrap().starts_with("20"), "{image}");
    let sequence: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(sequence.windows(2).all(|pair| pair[0] < pair[1]), "{sequence:?}");
    let all = parse(&world.mount().read("events"));
    assert!(all.iter().any(|event| event["event"]["name"] == tiny), "the root's has every namespace");
    let meta = std::fs::metadata(world.mount().at_path(&world.path("events"))).unwrap();
    assert!(meta.len() > 0, "its size is true");
}

/// A namespace's events are its own.
fn of_one_namespace(world: &World) {
    wait_for_stream(world);
    let other = World::new(world.version());
    other.tiny();
    world.tiny();
    eventually("the event is here", Duration::from_secs(2), || world.read("events").contains("/images/create"));
    for event in parse(&world.read("events")) {
        assert_eq!(event["namespace"], world.namespace, "{event}");
    }
}

/// `events.follow` is not listed, waits at its end and brings a new event within 100 ms.
fn follow(world: &World) {
    wait_for_stream(world);
    assert!(!world.ls("").iter().any(|name| name == "events.follow"));
    let path = world.mount().at_path(&world.path("events.follow"));
    let mut tail = Command::new("cat").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    while receiver.recv_timeout(Duration::from_millis(500)).is_ok() {}
    let tiny = world.tiny();
    let done = Instant::now();
    let seen = loop {
        let (at, line) = receiver.recv_timeout(Duration::from_secs(2)).expect("the event comes");
        if line.contains("/images/create") || line.contains("/images/update") {
            assert!(line.contains(tiny), "{line}");
            break at;
        }
    };
    assert!(seen < done + Duration::from_millis(100), "{:?} late", seen - done);
    tail.kill().unwrap();
    tail.wait().unwrap();
}

/// A follower that is overrun hears of it once, as EPIPE, and goes on with the oldest that is kept.
fn overrun(world: &World) {
    use std::io::Read;
    wait_for_stream(world);
    let mut slow = std::fs::File::open(world.mount().at_path(&world.path("events.follow"))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    assert!(slow.read(&mut buffer).unwrap() > 0);
    for n in 0..100 {
        world.containerd.rpc().publish(&world.namespace, &format!("/tests/{n}"), 100_000);
    }
    eventually("they have come", Duration::from_secs(10), || world.read("events").contains("/tests/99"));
    let error = slow.read(&mut buffer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE), "{error}");
    let mut rest = Vec::new();
    while !String::from_utf8_lossy(&rest).contains("/tests/99") || !rest.ends_with(b"\n") {
        let count = slow.read(&mut buffer).expect("it is said once");
        assert!(count > 0, "a follower does not end");
        rest.extend_from_slice(&buffer[..count]);
    }
    let events = parse(std::str::from_utf8(&rest).unwrap());
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
    let first = events[0]["topic"].as_str().unwrap();
    assert!(first.starts_with("/tests/") && first != "/tests/0", "it begins with the oldest that is kept: {first}");
}

/// Readers that wait die at once when they are killed, by SIGINT or SIGKILL, and `head` ends by itself.
fn readers_die(world: &World) {
    wait_for_stream(world);
    let path = world.mount().at_path(&world.path("events.follow"));
    let dies = |signal: i32| {
        let mut reader = Command::new("cat").arg(&path).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let pid = reader.id() as i32;
        assert!(teardown::is_alive(pid), "it waits");
        unsafe { libc::kill(pid, signal) };
        let took = eventually("it is dead", Duration::from_secs(2), || !teardown::is_alive(pid));
        reader.wait().unwrap();
        took
    };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        // The best of three: what else runs on this machine may take a turn in between.
        let took = (0..3).map(|_| dies(signal)).min().unwrap();
        assert!(took < Duration::from_millis(100), "signal {signal}: {took:?}");
    }
    let first = world.sh("head -n1 events.follow", 5).ok();
    assert_eq!(parse(&first).len(), 1);
    let timed = world.sh("timeout 0.3 cat events.follow > /dev/null", 5);
    assert_eq!(timed.code, Some(124));
    assert!(timed.took < Duration::from_secs(2), "{timed:?}");
}

/// Without waiting there is EAGAIN at the end; `poll` tells when there is more.
fn poll(world: &World) {
    use std::os::fd::AsRawFd;
    wait_for_stream(world);
    let path = world.mount().at_path(&world.path("events.follow"));
    let mut file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    let mut buffer = vec![0; 65536];
    let mut drain = |file: &mut std::fs::File| loop {
        match file.read(&mut buffer) {
            Ok(0) => panic!("a file that waits has no end"),
            Ok(_) => {}
            Err(error) => break error.raw_os_error(),
        }
    };
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(drain(&mut file), Some(libc::EAGAIN));
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 100) }, 0, "nothing to read");
    world.ctr(&["namespaces", "label", &world.namespace, "wake=up"]);
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 2000) }, 1, "something to read");
    assert_eq!(drain(&mut file), Some(libc::EAGAIN));
}

/// A hundred readers that wait do not slow a listing down.
fn a_hundred_readers(world: &World) {
    wait_for_stream(world);
    let path = world.mount().at_path(&world.path("events.follow"));
    let mut readers: Vec<_> =
        (0..100).map(|_| Command::new("cat").arg(&path).stdout(Stdio::null()).spawn().unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    for _ in 0..20 {
        world.ls("");
        world.read("labels");
        world.ls("blobs");
    }
    let took = started.elapsed();
    for reader in &mut readers {
        reader.kill().unwrap();
    }
    let killed = Instant::now();
    for reader in &mut readers {
        reader.wait().unwrap();
    }
    assert!(took < Duration::from_secs(2), "twenty rounds took {took:?}");
    assert!(killed.elapsed() < Duration::from_secs(1), "they took {:?} to die", killed.elapsed());
}

/// After containerd was away a `gap` event says that something may be missing, and events go on.
fn gap(world: &World) {
    wait_for_stream(world);
    world.containerd.kill();
    std::thread::sleep(Duration::from_millis(300));
    world.containerd.restart();
    eventually("the gap is told", Duration::from_secs(10), || {
        world.mount().read("events").lines().any(|line| line.contains("gap"))
    });
    let tiny = world.tiny();
    eventually("events go on", Duration::from_secs(5), || world.read("events").contains(tiny));
}

crate::each_version!(are_a_file, of_one_namespace, follow, overrun, readers_die, poll, a_hundred_readers);
crate::each_version_alone!(gap);
