//! `status` of a task and of an exec, `state` of a job: poll(2) tells when they are others.

use crate::common::registry::{Kind, Registry};
use crate::common::{World, eventually};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

fn open(world: &World, path: &str) -> File {
    File::open(world.mount().at_path(&world.path(path))).unwrap()
}

/// What the file says now, read from its beginning.
fn now(file: &File) -> String {
    let mut bytes = [0; 64];
    let count = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(file.read_at(&mut [0; 8], count as u64).unwrap(), 0, "its end");
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

/// poll(2) for a change: what it says after at most so many milliseconds.
fn poll(file: &File, timeout: i32) -> i16 {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    assert!(unsafe { libc::poll(&mut poll, 1, timeout) } >= 0);
    poll.revents
}

const CHANGED: i16 = libc::POLLPRI | libc::POLLERR;

/// Makes a change, which has to be told well before anything times out, and gives what is read then.
fn after(file: &File, change: impl FnOnce() + Send) -> String {
    assert_eq!(poll(file, 0), 0, "nothing has changed");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (poll(file, 20_000), Instant::now()));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished(), "nothing has changed yet");
        change();
        let changed = Instant::now();
        let (events, told) = waiting.join().unwrap();
        assert_eq!(events, CHANGED);
        let late = told.saturating_duration_since(changed);
        assert!(late < Duration::from_secs(5), "told {late:?} after it was done");
    });
    assert_eq!(poll(file, 0), CHANGED, "as long as nobody has read it");
    now(file)
}

fn run(world: &World) -> String {
    let id = world.new_id("status");
    world.order("", &format!("run {} {id} sleep 1000", world.tiny()));
    format!("containers/{id}")
}

/// Whoever polls a task's status hears of each change, whoever makes it, and of nothing else.
fn of_a_task(world: &World) {
    let container = run(world);
    let id = container.strip_prefix("containers/").unwrap();
    let file = open(world, &format!("{container}/task/status"));
    assert_eq!(now(&file), "running\n");
    assert_eq!(after(&file, || world.order(&container, "pause")), "paused\n");
    assert_eq!(after(&file, || drop(world.ctr(&["tasks", "resume", id]))), "running\n");
    assert_eq!(after(&file, || drop(world.ctr(&["tasks", "pause", id]))), "paused\n");
    assert_eq!(after(&file, || world.order(&container, "resume")), "running\n");
    // Other things that happen to it are no change of its status.
    world.order(&container, "label a=b");
    world.order(&container, "exec --exec-id other true");
    assert_eq!(poll(&file, 700), 0);
    // However often it is asked, one waits for it.
    (0..50).for_each(|_| assert_eq!(poll(&file, 2), 0));
    let parked = || -> u64 {
        let metrics = world.mount().read(".ctrfs/metrics");
        let line = metrics.lines().find(|line| line.starts_with("ctrfs_parked ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(parked() <= 1, "{} are parked", parked());
    // Two who hold it open hear of it both.
    let second = open(world, &format!("{container}/task/status"));
    let stopped = after(&file, || assert_eq!(after(&second, || world.order(&container, "kill -s KILL")), "stopped\n"));
    assert_eq!(stopped, "stopped\n");
    // Once the task is gone there is no status.
    assert_eq!(poll(&file, 0), 0);
    world.order(&format!("{container}/task"), "delete");
    assert_eq!(poll(&file, 5000), CHANGED);
    assert_eq!(file.read_at(&mut [0; 8], 0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    drop((file, second));
    eventually("nobody waits any more", Duration::from_secs(3), || parked() == 0);
}

/// The same of a further process, by epoll.
fn of_an_exec(world: &World) {
    let container = run(world);
    world.order(&container, "exec --exec-id one sh -c 'read line; exit 3'");
    let file = open(world, &format!("{container}/task/exec/one/status"));
    assert_eq!(now(&file), "running\n");
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut event = libc::epoll_event { events: libc::EPOLLPRI as u32, u64: 7 };
    assert_eq!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, file.as_raw_fd(), &mut event) }, 0);
    assert_eq!(unsafe { libc::epoll_wait(epoll, &mut event, 1, 200) }, 0, "it runs");
    std::fs::write(world.mount().at_path(&world.path(&format!("{container}/task/exec/one/stdin"))), "x\n").unwrap();
    assert_eq!(unsafe { libc::epoll_wait(epoll, &mut event, 1, 10_000) }, 1, "it has ended");
    assert_eq!(({ event.events } as i32) & libc::EPOLLPRI, libc::EPOLLPRI);
    assert_eq!(now(&file), "stopped\n");
    assert_eq!(unsafe { libc::epoll_wait(epoll, &mut event, 1, 200) }, 0, "and nothing more can happen");
    assert_eq!(world.value(&format!("{container}/task/exec/one/exit_status")), "3");
    unsafe { libc::close(epoll) };
}

/// A program of a few lines waits for an end, as one would for a cgroup's.
fn in_python(world: &World) {
    let container = run(world);
    let script = format!(
        "true\n python3 - {container}/task/status <<'X' & sleep 0.5; echo kill KILL > {container}/ctl; wait $!\n\
         import select, sys\n\
         f = open(sys.argv[1]); p = select.poll(); p.register(f, select.POLLPRI)\n\
         while f.read() != 'stopped\\n': p.poll(); f.seek(0)\n\
         print('it has ended')\n\
         X"
    );
    assert_eq!(world.sh(&script, 30).ok(), "it has ended\n");
}

/// The end of a long command is told in the same way.
fn of_a_job(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, target) = super::pull::unique(world, 3000);
    registry.put(&layout, &target, "big:1");
    world.order("", &format!("images pull {}/big:1 &", registry.slow(400_000)));
    eventually("it runs", Duration::from_secs(5), || world.exists("jobs/1/state"));
    let file = open(world, "jobs/1/state");
    assert_eq!(now(&file), "running\n");
    assert_eq!(after(&file, || world.order("jobs/1", "cancel")), "cancelled\n");
}

crate::each_version!(of_a_task, of_an_exec, of_a_job, in_python);
