//! What can be done to an object: a table of verbs, of which one line written to `ctl` names one.
//!
//! `cat ctl`, the reference of the tree and the execution of a command read the same row: *to add a command, add one
//! row.*

use super::command::{Command, Word};
use super::{Object, doc};
use crate::error::{Error, Kind, Result};
use crate::fail;
use std::fmt::Write;

/// One verb of objects of type `T`.
pub struct Verb<T: 'static> {
    /// The word that names it, or the two: `kill`, `images pull`.
    pub name: &'static str,
    /// Other spellings of it.
    pub aliases: &'static [&'static str],
    /// What may follow, for people.
    pub args: &'static str,
    /// One sentence on what it does.
    pub doc: &'static str,
    /// Flags whose values nobody else may read.
    pub secret: &'static [&'static str],
    /// Whether it can be done now; only for `cat ctl`, for the function says itself what is in its way.
    pub when: Option<fn(&T) -> Result<bool>>,
    /// Does it. Runs on a thread of its own under [`crate::wait::command`].
    pub run: fn(&T, &Command) -> Result<()>,
}

/// A verb.
pub const fn verb<T>(
    name: &'static str,
    args: &'static str,
    doc: &'static str,
    run: fn(&T, &Command) -> Result<()>,
) -> Verb<T> {
    Verb { name, aliases: &[], args, doc, secret: &[], when: None, run }
}

impl<T> Verb<T> {
    /// The same with other spellings.
    pub const fn or(mut self, aliases: &'static [&'static str]) -> Verb<T> {
        self.aliases = aliases;
        self
    }

    /// The same, shown by `cat ctl` only where it can be done.
    pub const fn when(mut self, when: fn(&T) -> Result<bool>) -> Verb<T> {
        self.when = Some(when);
        self
    }

    /// The same, with flags whose values are shown nowhere.
    pub const fn secret(mut self, flags: &'static [&'static str]) -> Verb<T> {
        self.secret = flags;
        self
    }

    /// How many words of `words` name this verb; 0 if they do not.
    fn matches(&self, words: &[Word]) -> usize {
        let named = |name: &str| {
            let count = name.split(' ').count();
            let same = name.split(' ').eq(words.iter().take(count).map(|word| word.text.as_str()));
            if same { count } else { 0 }
        };
        std::iter::once(self.name).chain(self.aliases.iter().copied()).map(named).max().unwrap_or(0)
    }
}

/// All verbs of objects of one type, as a row of their directory has them.
pub struct Verbs<T: 'static> {
    /// In groups, so that each noun's verbs stand in its own source file.
    pub groups: &'static [&'static [Verb<T>]],
    /// Rewrites the words before a verb is looked for: a language has short names for its nouns. Most need none.
    pub words: fn(&T, &mut Command) -> Result<()>,
    /// More to say after the verbs; most have nothing.
    pub note: fn(&T) -> Result<String>,
}

impl<T> Verbs<T> {
    /// Verbs, and nothing else.
    pub const fn new(groups: &'static [&'static [Verb<T>]]) -> Verbs<T> {
        Verbs { groups, words: |_, _| Ok(()), note: |_| Ok(String::new()) }
    }

    fn rows(&self) -> impl Iterator<Item = &'static Verb<T>> {
        self.groups.iter().copied().flatten()
    }
}

/// What a control file is to the mount.
pub trait Control: Send + Sync {
    /// The verbs that are valid now, a line each.
    fn help(&self) -> Result<Vec<u8>>;
    /// Carries out one command.
    fn run(&self, command: Command) -> Result<()>;
}

/// The verbs of one object.
pub(super) struct Bound<T: 'static> {
    pub object: T,
    pub verbs: &'static Verbs<T>,
}

impl<T: Object> Bound<T> {
    /// No verb is called so; where there are some of that noun, its second word is at fault.
    fn unknown(&self, command: &Command) -> Error {
        let noun = command.words.first().map_or("", |word| &word.text);
        let known = self.verbs.rows().any(|verb| verb.name.split_once(' ').is_some_and(|(first, _)| first == noun));
        let count = if known { 2 } else { 1 };
        let words: Vec<&str> = command.words.iter().take(count).map(|word| word.text.as_str()).collect();
        let at = command.words.get(count - 1).map_or(command.line.len(), |word| word.at);
        let message = format!("{}: no such verb here; `cat ctl` shows those there are", words.join(" "));
        Error::new(Kind::Invalid, message).at(&command.line, at)
    }
}

impl<T: Object> Control for Bound<T> {
    fn help(&self) -> Result<Vec<u8>> {
        let mut text = String::new();
        for verb in self.verbs.rows() {
            if verb.when.map_or(Ok(true), |when| when(&self.object))? {
                let usage = format!("{} {}", verb.name, verb.args);
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{:<28}  {}", usage.trim_end(), verb.doc);
            }
        }
        text.push_str(&(self.verbs.note)(&self.object)?);
        Ok(text.into_bytes())
    }

    fn run(&self, mut command: Command) -> Result<()> {
        // A handle never acts on a successor of its object (DESIGN 5).
        if let Err(error) = self.object.modified() {
            return match error.kind() {
                Kind::NotFound => fail!(Stale, "{}: gone since it was opened", self.object.component()),
                _ => Err(error),
            };
        }
        (self.verbs.words)(&self.object, &mut command)?;
        let named = self.verbs.rows().map(|verb| (verb.matches(&command.words), verb)).max_by_key(|(n, _)| *n);
        match named {
            Some((count @ 1.., verb)) => {
                command.words.drain(..count);
                command.hide(verb.secret);
                (verb.run)(&self.object, &command).map_err(|e| e.about(&command.line, verb.name))
            }
            _ => Err(self.unknown(&command)),
        }
    }
}

/// Writes the verbs of a control file into the reference.
pub(super) fn describe<T>(verbs: &Verbs<T>, doc: &mut doc::Writer) {
    for verb in verbs.rows() {
        doc.verb(verb.name, verb.args, verb.doc);
    }
}
