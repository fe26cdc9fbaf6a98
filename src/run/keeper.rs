//! Looking after the processes that a ctrfs before this one started, and after the files of those that are gone.

use super::Engine;
use crate::containerd::Client;
use crate::error::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the files are looked after.
const EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether containerd is there again.
const TICK: Duration = Duration::from_secs(1);

impl Engine {
    /// Starts the thread that does it, for as long as the program runs.
    pub fn keep(self: &Arc<Engine>, client: &Client) -> Result<()> {
        let (client, engine) = (client.clone(), Arc::clone(self));
        let work = move || {
            let mut epoch = 0;
            let mut last = Instant::now();
            loop {
                let state = client.state();
                if state.connected && (state.epoch != epoch || last.elapsed() > EVERY) {
                    (epoch, last) = (state.epoch, Instant::now());
                    if let Err(error) = engine.look_after(&client) {
                        tracing::debug!(%error, "the processes of an earlier ctrfs are looked for again");
                    }
                }
                std::thread::sleep(if epoch == 0 { TICK / 20 } else { TICK });
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
