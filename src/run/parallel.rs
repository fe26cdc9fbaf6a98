//! The same for many, some at once.

use crate::error::{Error, Result};
use crate::wait;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Does `work` for each item on `threads` threads, in their order, until one fails: then with its error.
pub fn each<T: Send>(items: Vec<T>, threads: usize, work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let threads = threads.clamp(1, items.len().max(1));
    let queue = Mutex::new((VecDeque::from(items), None::<Error>));
    let cancel = wait::cancel().unwrap_or_default();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (queue, work, cancel) = (&queue, &work, cancel.clone());
            let run = move || {
                wait::command(&cancel, || {
                    while let Some(item) = next(queue) {
                        if let Err(error) = wait::check().and_then(|()| work(&item)) {
                            lock(queue).1.get_or_insert(error);
                        }
                    }
                });
            };
            let name = format!("ctrfs-each-{number}");
            if let Err(error) = std::thread::Builder::new().name(name).spawn_scoped(scope, run) {
                lock(queue).1.get_or_insert(error.into());
            }
        }
    });
    queue.into_inner().unwrap_or_else(PoisonError::into_inner).1.map_or(Ok(()), Err)
}

type Queue<T> = Mutex<(VecDeque<T>, Option<Error>)>;

fn lock<T>(queue: &Queue<T>) -> MutexGuard<'_, (VecDeque<T>, Option<Error>)> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next<T>(queue: &Queue<T>) -> Option<T> {
    let mut queue = lock(queue);
    if queue.1.is_some() { None } else { queue.0.pop_front() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fail;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_are_done_or_the_first_failure_is_told() {
        let done = AtomicUsize::new(0);
        each((0..100).collect(), 3, |_| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(done.into_inner(), 100);
        let failed = each((0..100).collect(), 3, |n| if *n == 7 { fail!(Io, "seven") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "seven");
        each(Vec::<u8>::new(), 3, |_| Ok(())).unwrap();
    }
}
