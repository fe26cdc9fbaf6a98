//! A containerd that takes its time: a socket in between that passes everything on, late.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// A proxy of a containerd's socket. Its API passes no descriptors, so bytes are all there is to pass.
pub struct Slow {
    pub socket: PathBuf,
    millis: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

impl Slow {
    /// A socket before `address`, without delay at first.
    pub fn before(address: &str) -> Slow {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("slow.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let millis = Arc::new(AtomicU64::new(0));
        let (target, delay) = (PathBuf::from(address), Arc::clone(&millis));
        // Ends with the test's process: a listener has no end of its own.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                join(client, &target, &delay);
            }
        });
        Slow { socket, millis, _dir: dir }
    }

    /// From now on every answer comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.millis.store(delay.as_millis() as u64, Ordering::SeqCst);
    }
}

fn join(client: UnixStream, target: &Path, delay: &Arc<AtomicU64>) {
    let Ok(server) = UnixStream::connect(target) else { return };
    let none = Arc::new(AtomicU64::new(0));
    pass(client.try_clone().unwrap(), server.try_clone().unwrap(), none);
    pass(server, client, Arc::clone(delay));
}

/// Passes bytes on, each as late as was said when it came: what follows is not held back by more than that.
fn pass(mut from: UnixStream, mut to: UnixStream, delay: Arc<AtomicU64>) {
    let (queue, waiting) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, bytes) in waiting {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + Duration::from_millis(delay.load(Ordering::SeqCst));
            if queue.send((due, buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
}
