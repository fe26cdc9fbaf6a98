//! The threads that carry out writes, one each: a command may take as long as it wants.
//!
//! A thread is there before a write is let in, so that a write for which there is none changes nothing: it is refused,
//! its handle stays as it was, and it may be tried again.

use super::caught;
use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

/// How many writes are carried out at once.
const MOST: usize = 512;

type Work = Box<dyn FnOnce() + Send>;

/// Who carries out writes, so many at once.
pub struct Hands {
    busy: Arc<AtomicUsize>,
    most: usize,
    /// How large the stack of a thread is; the standard library's choice if `None`.
    stack: Option<usize>,
}

impl Default for Hands {
    fn default() -> Hands {
        Hands { busy: Arc::default(), most: MOST, stack: None }
    }
}

/// A thread that waits for its work. Dropped, it ends without any.
pub struct Hand(Sender<Work>);

impl Hand {
    /// Has the work done. A panic in it is the end of this work and of nothing else.
    pub fn carry_out(self, work: impl FnOnce() + Send + 'static) {
        // It waits for this and for nothing else, so it takes it.
        let _ = self.0.send(Box::new(work));
    }
}

/// One of those that are busy.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hands {
    /// A thread, unless as many as there may be are busy.
    pub fn hire(&self) -> Result<Hand> {
        let place = self.place();
        if self.busy.load(Ordering::Acquire) > self.most {
            let most = self.most;
            let why =
                format!("{most} writes are carried out already: wait until one ends, or end one of their writers");
            return Err(Error::new(Kind::Again, why));
        }
        self.start(place)
    }

    /// A thread for what has been begun and must end, however many are busy.
    pub fn hire_to_end(&self) -> Result<Hand> {
        self.start(self.place())
    }

    fn place(&self) -> Place {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(&self.busy))
    }

    fn start(&self, place: Place) -> Result<Hand> {
        let (give, take) = channel::<Work>();
        let mut builder = std::thread::Builder::new().name("ctrfs-command".into());
        if let Some(stack) = self.stack {
            builder = builder.stack_size(stack);
        }
        let run = move || {
            let _place = place;
            if let Ok(work) = take.recv() {
                let _ = caught(|| {
                    work();
                    Ok(())
                });
            }
        };
        match builder.spawn(run) {
            Ok(_) => Ok(Hand(give)),
            Err(error) => {
                let why = format!("no thread can be started to carry it out ({error}); try again");
                Err(Error::caused(Kind::Again, why, error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn free(hands: &Hands) -> bool {
        let began = Instant::now();
        while hands.busy.load(Ordering::Acquire) > 0 {
            if began.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn refusal(hired: Result<Hand>) -> Error {
        hired.err().expect("a thread was given")
    }

    #[test]
    fn beyond_the_bound_a_write_is_refused_and_what_must_end_is_not() {
        let hands = Hands { most: 2, ..Hands::default() };
        let held = (hands.hire().unwrap(), hands.hire().unwrap());
        let error = refusal(hands.hire());
        assert!(error.kind() == Kind::Again && error.to_string().contains("2 writes"), "{error}");
        let (told, hears) = channel();
        hands.hire_to_end().unwrap().carry_out(move || told.send(()).unwrap());
        hears.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(held);
        assert!(free(&hands), "who got no work has ended");
        hands.hire().unwrap().carry_out(|| panic!("this work fails, as the test wants it"));
        assert!(free(&hands), "a panic gives its place back");
        drop((hands.hire().unwrap(), hands.hire().unwrap()));
    }

    #[test]
    fn where_no_thread_can_be_started_the_write_is_refused_and_no_place_is_lost() {
        let hands = Hands { most: 2, stack: Some(1 << 60), ..Hands::default() };
        for _ in 0..5 {
            let error = refusal(hands.hire());
            assert!(error.kind() == Kind::Again && error.to_string().contains("no thread"), "{error}");
        }
        assert_eq!(refusal(hands.hire_to_end()).kind(), Kind::Again);
        assert_eq!(hands.busy.load(Ordering::Acquire), 0);
    }
}
