//! Looking after the processes that a ctrfs before this one started, and after the files of those that are gone.

use super::Engine;
use crate::containerd::{Change, Client};
use crate::error::Result;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often the files are looked after.
const EVERY: Duration = Duration::from_secs(60);

impl Engine {
    /// Starts the thread that does it, for as long as the program runs.
    pub fn keep(self: &Arc<Engine>, client: &Client) -> Result<()> {
        let (client, engine) = (client.clone(), Arc::clone(self));
        // A new connection is told: nothing wakes up to look for one.
        let (sender, connections) = channel();
        client.on_change(move |change| {
            if change == Change::Everything {
                // Without the thread there is nobody to tell.
                let _ = sender.send(());
            }
        });
        let work = move || {
            let mut epoch = 0;
            let mut last = Instant::now();
            loop {
                let state = client.state();
                if state.connected && (state.epoch != epoch || last.elapsed() >= EVERY) {
                    (epoch, last) = (state.epoch, Instant::now());
                    if let Err(error) = engine.look_after(&client) {
                        tracing::debug!(%error, "the processes of an earlier ctrfs are looked for again");
                    }
                }
                if connections.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("ctrfs-keeper".into()).spawn(work)?;
        Ok(())
    }

    fn look_after(self: &Arc<Engine>, client: &Client) -> Result<()> {
        client.return_leases();
        for name in client.namespaces()?.keys() {
            if let Some(namespace) = client.namespace(name)? {
                self.adopt(&namespace)?;
            }
        }
        Ok(())
    }
}
