//! ctrfs is killed with SIGKILL in the middle of each long command, and containerd in the middle of a `run`: nothing half
//! made stays, and the same command works afterwards.

use super::pull::unique;
use crate::common::holdings::{collect, holdings};
use crate::common::registry::{Kind, Registry};
use crate::common::slow::Slow;
use crate::common::{Mount, Version, World, eventually};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Each answer of containerd comes so late, so that a command has a middle.
const LATE: Duration = Duration::from_millis(15);

/// containerd's number for a task that runs.
const RUNNING: i32 = containerd_client::types::v1::Status::Running as i32;

/// A mount that sees its containerd through something slow.
struct Far {
    slow: Slow,
    dir: PathBuf,
}

impl Far {
    fn new(world: &World) -> Far {
        let dir = world.containerd.dir.join(format!("{}-far", world.namespace));
        fs::create_dir_all(dir.join("m")).unwrap();
        Far { slow: Slow::before(&world.containerd.address()), dir }
    }

    /// Gives a command in the background, and kills ctrfs so long after that; true if the command was under way then.
    fn kill_during(&self, world: &World, (path, line): (&str, &str), after: Duration) -> bool {
        self.slow.delay(Duration::ZERO);
        let mount = Mount::at(&self.dir.join("m"), self.slow.socket.to_str().unwrap(), &self.dir, &[]);
        assert!(mount.exists(&world.path("images")));
        let at = |path: &str| mount.at_path(&world.path(path));
        assert!(at(path).join("ctl").exists());
        self.slow.delay(LATE);
        fs::write(at(path).join("ctl"), format!("{line} &\n")).unwrap();
        std::thread::sleep(after);
        let state = fs::read_to_string(at("jobs/1/state")).unwrap_or_else(|_| "running\n".into());
        mount.kill();
        state == "running\n"
    }
}

/// What a namespace holds, and whatever of it is only half there.
fn all(world: &World) -> BTreeMap<String, String> {
    let rpc = world.containerd.rpc();
    let mut all = holdings(world);
    // What was learned of a blob meanwhile is true for ever, and may stay.
    for (_, said) in all.iter_mut().filter(|(key, _)| key.starts_with("blob")) {
        said.truncate(said.find(" {").unwrap());
    }
    for container in rpc.containers(&world.namespace) {
        all.insert(format!("container {}", container.id), container.snapshot_key);
    }
    for task in rpc.tasks(&world.namespace) {
        all.insert(format!("task {}", task.id), task.status.to_string());
    }
    all
}

/// Once the next ctrfs has looked after what is left, there is what was there before. What the command had made whole,
/// only that nobody heard of it any more, is whole, and is taken away here.
#[track_caller]
fn nothing_stays(world: &World, before: &BTreeMap<String, String>, what: &str) {
    let next = Mount::new(&world.containerd, &["--debug"]);
    let rpc = world.containerd.rpc();
    let order = |line: &str| {
        let ctl = next.at_path(&world.path("ctl"));
        match fs::write(ctl, line) {
            // It was just about to start when it was looked at, and is put away meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            done => done.unwrap_or_else(|e| panic!("{what}: {line}: {e}: {}", next.read(&world.path("error")))),
        }
    };
    for task in rpc.tasks(&world.namespace).iter().filter(|task| task.status == RUNNING) {
        let made = !before.contains_key(&format!("container {}", task.id));
        order(&format!("{} delete -f {}", if made { "containers" } else { "tasks" }, task.id));
    }
    for image in rpc.images(&world.namespace).iter().filter(|i| !before.contains_key(&format!("image {}", i.name))) {
        let check = next.read(&world.path(&format!("images/{}/check", image.name)));
        assert!(check.contains("status=complete"), "{what}: {check}");
        order(&format!("images delete --sync {}", image.name));
    }
    let mut now = BTreeMap::new();
    let same = || {
        collect(world);
        now = all(world);
        now == *before
    };
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("it is as before", Duration::from_secs(10), same);
    }));
    assert!(looked.is_ok(), "{what}:\n now {now:#?}\n before {before:#?}\n{}", next.said());
}

/// `command` is killed at several times of its life; each time nothing of it stays, and at last it works.
#[track_caller]
fn survives(world: &World, path: &str, command: &str) {
    survives_until(world, path, command, || false);
}

/// The same of one whose whole effect cannot be taken away again; `done` tells that it is there.
#[track_caller]
fn survives_until(world: &World, path: &str, command: &str, done: impl Fn() -> bool) {
    collect(world);
    let (far, before) = (Far::new(world), all(world));
    let mut under_way = 0;
    for step in 0..8 {
        let after = Duration::from_millis(40 + 90 * step);
        let running = far.kill_during(world, (path, command), after);
        under_way += u32::from(running);
        if done() {
            break;
        }
        nothing_stays(world, &before, &format!("{command}, killed after {after:?}"));
        if !running {
            break;
        }
    }
    println!("{command}: {under_way} kills in its middle");
    assert!(under_way > 1, "{command}: it has no middle");
    world.order(path, command);
}

fn import(world: &World) {
    let (layout, target) = unique(world, 2000);
    let tar = world.containerd.dir.join(format!("{}.tar", world.namespace));
    layout.save(&target, "docker.io/library/killed:1", &tar);
    survives(world, "", &format!("images import {}", tar.display()));
    assert!(world.read("images/docker.io/library/killed:1/check").contains("unpacked=true"));
}

fn pull(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = unique(world, 2000);
    registry.put(&layout, &target, "killed:1");
    let image = format!("{}/killed:1", registry.slow(4_000_000));
    survives(world, "", &format!("images pull --plain-http {image}"));
    assert!(world.read(&format!("images/{image}/check")).contains("unpacked=true"));
}

/// An image that is here, of some size.
fn image(world: &World) -> &'static str {
    let (layout, target) = unique(world, 3000);
    let tar = world.containerd.dir.join(format!("{}.tar", world.namespace));
    layout.save(&target, "docker.io/library/here:1", &tar);
    world.order("", &format!("images import --no-unpack {}", tar.display()));
    "docker.io/library/here:1"
}

fn push(world: &World) {
    let (registry, image) = (Registry::start(Kind::Plain), image(world));
    let remote = registry.reference("pushed:1");
    survives(world, "", &format!("images push --plain-http {remote} {image}"));
    let digest =
        world.sh(&format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{remote}"), 20);
    assert_eq!(digest.ok().trim(), world.value(&format!("images/{image}/digest")));
}

fn export(world: &World) {
    let image = image(world);
    let to = world.containerd.dir.join(format!("{}-out.tar", world.namespace));
    survives(world, "", &format!("images export {} {image}", to.display()));
    let listed = world.sh(&format!("tar -tf {}", to.display()), 20).ok();
    assert!(listed.contains("index.json") && listed.contains("manifest.json"), "{listed}");
}

fn convert(world: &World) {
    let image = image(world);
    survives(world, "", &format!("images convert --zstd {image} docker.io/library/zstd:1"));
    assert!(world.read("images/docker.io/library/zstd:1/layers/00/media_type").contains("zstd"));
}

fn unpack(world: &World) {
    let image = image(world);
    let unpacked = || world.read(&format!("images/{image}/check")).contains("unpacked=true");
    survives_until(world, &format!("images/{image}"), "unpack", unpacked);
    assert!(unpacked());
}

fn run(world: &World) {
    let (tiny, id) = (world.tiny(), world.new_id("killed"));
    survives(world, "", &format!("run {tiny} {id} sleep 1000"));
    assert_eq!(world.value(&format!("containers/{id}/task/status")), "running");
    // The same of a task of a container that stays.
    world.order("", &format!("tasks delete -f {id}"));
    survives(world, &format!("containers/{id}"), "start");
}

/// containerd is killed in the middle of a `run`: the command ends, and when containerd is back either all of it is there
/// or nothing, and the same command works.
fn containerd_in_a_run(world: &World) {
    let tiny = world.tiny();
    let far = Far::new(world);
    let mount = Mount::at(&far.dir.join("m"), far.slow.socket.to_str().unwrap(), &far.dir, &[]);
    let ctl = mount.at_path(&world.path("ctl"));
    collect(world);
    let before = all(world);
    let mut failed = 0;
    for step in 0..12 {
        let id = world.new_id("half");
        let line = format!("run {tiny} {id} sleep 1000\n");
        far.slow.delay(LATE);
        let (to, text) = (ctl.clone(), line.clone());
        let writer = std::thread::spawn(move || fs::write(to, text));
        std::thread::sleep(Duration::from_millis(30 + 45 * step));
        world.containerd.kill();
        let done = writer.join().unwrap();
        far.slow.delay(Duration::ZERO);
        world.containerd.restart();
        if let Err(error) = &done {
            failed += 1;
            let said = mount.read(&world.path("error"));
            assert_eq!(error.raw_os_error(), Some(libc::EHOSTDOWN), "step {step}: {said}");
        }
        let runs = || world.containerd.rpc().tasks(&world.namespace).iter().any(|task| task.status == RUNNING);
        let mut now = BTreeMap::new();
        let whole = || {
            collect(world);
            now = all(world);
            runs() || now == before
        };
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("all of it is there, or nothing", Duration::from_secs(15), whole);
        }));
        assert!(looked.is_ok(), "step {step}: {done:?}\n now {now:#?}\n before {before:#?}\n{}", mount.said());
        assert!(done.is_err() || runs(), "step {step}: it was said to run");
        if !runs() {
            eventually("it works", Duration::from_secs(40), || match fs::write(&ctl, &line) {
                Err(error) if error.raw_os_error() == Some(libc::EHOSTDOWN) => false,
                // 1.6 does not remove the directory of a shim that it had not come to start, until it is started again.
                Err(_) if mount.read(&world.path("error")).contains("mkdir ") && world.version() == Version::V1_6 => {
                    world.containerd.stop();
                    world.containerd.restart();
                    false
                }
                done => {
                    done.unwrap_or_else(|e| panic!("step {step}: {e}: {}", mount.read(&world.path("error"))));
                    true
                }
            });
        }
        // One that was seen to run may be the one that the failed command is just taking back.
        let gone = fs::write(&ctl, format!("containers delete -f {id}\n"));
        assert!(gone.is_ok() || done.is_err(), "step {step}: {gone:?}");
        eventually("it is gone", Duration::from_secs(10), || {
            collect(world);
            now = all(world);
            now == before
        });
    }
    println!("{failed} commands failed");
    assert!(failed > 2);
}

crate::each_version_alone!(run, containerd_in_a_run);
crate::each_version_alone!(import, pull, push, export, convert, unpack);
