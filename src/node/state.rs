//! A text that can be waited for, as sysfs and cgroups have them: a read at its beginning shows what is true then, and
//! poll(2) says POLLPRI once that would be another text.

use super::handle::Opened;
use super::{Make, Object};
use crate::error::{Kind, Result};
use crate::fail;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Such a text, open.
pub struct State {
    render: Box<dyn Fn() -> Result<Option<Vec<u8>>> + Send + Sync>,
    /// What was read from the beginning last.
    shown: Mutex<Vec<u8>>,
    /// It is known to be another one.
    changed: AtomicBool,
    /// Somebody who may wait is finding out.
    asking: AtomicBool,
}

/// The right to find out; there is one for a [`State`].
pub struct Asking(Arc<State>);

impl State {
    /// Opens the text of an object, if it applies.
    pub fn open<T: Object>(object: &T, make: Make<T, Vec<u8>>) -> Result<Option<Opened>> {
        let Some(shown) = make(object)? else { return Ok(None) };
        let object = object.clone();
        let (render, shown) = (Box::new(move || make(&object)), Mutex::new(shown));
        Ok(Some(Opened::State(Arc::new(State {
            render,
            shown,
            changed: Default::default(),
            asking: Default::default(),
        }))))
    }

    /// The bytes at `offset`: of the text as it is now, or, behind its beginning, as it was when that was read.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let lock = || self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 {
            // Before it is asked what it is, so that no change is missed in between.
            self.changed.store(false, Ordering::SeqCst);
            let Some(text) = (self.render)()? else { return fail!(NotFound, "what it tells of is gone") };
            *lock() = text;
        }
        let shown = lock();
        let rest = usize::try_from(offset).ok().and_then(|offset| shown.get(offset..)).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest).to_vec())
    }

    /// Whether it would be read as another text than it was last. `WouldWait` where that cannot be told at once.
    pub fn has_changed(&self) -> Result<bool> {
        if self.changed.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let changed = match (self.render)() {
            Ok(Some(text)) => *self.shown.lock().unwrap_or_else(PoisonError::into_inner) != text,
            Ok(None) => true,
            Err(error) if error.kind() == Kind::WouldWait => return Err(error),
            // Nobody can tell while containerd is away.
            Err(error) => matches!(error.kind(), Kind::NotFound | Kind::Gone | Kind::Stale),
        };
        if changed {
            self.changed.store(true, Ordering::SeqCst);
        }
        Ok(changed)
    }

    /// The right to find out whether it changed, unless somebody else has it.
    pub fn ask(self: &Arc<Self>) -> Option<Asking> {
        let free = !self.asking.swap(true, Ordering::SeqCst);
        free.then(|| Asking(Arc::clone(self)))
    }
}

impl Asking {
    /// Finds out, where it may take a while.
    pub fn find_out(self) {
        // A failure tells nothing: it is asked again.
        let _ = self.0.has_changed();
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[derive(Clone)]
    struct Lamp(Arc<Mutex<Option<&'static str>>>);

    impl Object for Lamp {
        fn component(&self) -> Cow<'_, str> {
            "lamp".into()
        }
    }

    fn text(lamp: &Lamp) -> Result<Option<Vec<u8>>> {
        Ok(lamp.0.lock().unwrap().map(|text| text.as_bytes().to_vec()))
    }

    #[test]
    fn a_state_is_read_anew_from_its_beginning_and_says_when_it_changed() {
        let lamp = Lamp(Arc::new(Mutex::new(Some("off\n"))));
        let Some(Opened::State(state)) = State::open(&lamp, text).unwrap() else { panic!("no state") };
        assert!(!state.has_changed().unwrap());
        *lamp.0.lock().unwrap() = Some("on, and bright\n");
        assert!(state.has_changed().unwrap());
        assert_eq!(state.read(2, 100).unwrap(), b"f\n");
        assert!(state.has_changed().unwrap(), "what follows a beginning is of one text with it");
        assert_eq!(state.read(0, 2).unwrap(), b"on");
        assert!(!state.has_changed().unwrap());
        assert_eq!(state.read(2, 100).unwrap(), b", and bright\n");
        *lamp.0.lock().unwrap() = None;
        assert!(state.has_changed().unwrap());
        assert_eq!(state.read(0, 100).unwrap_err().kind(), Kind::NotFound);
        assert!(state.ask().is_some_and(|first| state.ask().is_none() && std::mem::size_of_val(&first) > 0));
        assert!(state.ask().is_some());
    }
}
