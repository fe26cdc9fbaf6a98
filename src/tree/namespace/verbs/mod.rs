//! `/namespaces/<namespace>/ctl`: `ctr`'s own language (DESIGN 4).
//!
//! The verbs of each noun stand in a file of their own; here are the rules that all lines obey. What an object's own
//! `ctl` does is the same function.

pub mod containers;
pub mod content;
pub mod images;
pub mod leases;
mod namespaces;
pub mod snapshots;

use super::Ns;
use crate::containerd::LabelChanges;
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::Object;
use crate::node::command::{Command, Word};
use crate::node::verb::{Verb, Verbs};

pub static VERBS: Verbs<Ns> = Verbs {
    groups: &[containers::VERBS, images::VERBS, content::VERBS, snapshots::VERBS, leases::VERBS, namespaces::VERBS],
    words,
    note: |_| Ok(NOTE.into()),
};

/// What `cat ctl` says after the verbs.
const NOTE: &str = "\
A leading `ctr` is ignored. A last word `&` leaves the command behind; long ones are seen in jobs/. `error` says why
the last one failed, .ctrfs/errors/$$ (of the root) why the last one of this shell did.
";

/// `ctr`'s other names of its groups of commands (`cmd/ctr/commands/*`, `Aliases`).
const NOUNS: &[(&str, &[&str])] = &[
    ("containers", &["c", "container"]),
    ("content", &[]),
    ("images", &["image", "i"]),
    ("leases", &["lease"]),
    ("namespaces", &["namespace", "ns"]),
    ("sandboxes", &["sandbox", "sb", "s"]),
    ("snapshots", &["snapshot"]),
    ("tasks", &["t", "task"]),
];

/// `ctr` before its command takes flags: those that say where the command goes are checked, for the line goes here.
fn words(ns: &Ns, command: &mut Command) -> Result<()> {
    if command.words.first().is_some_and(|word| word.text == "ctr") {
        command.words.remove(0);
        namespace_flag(ns, command)?;
    }
    // Alone it is a word of its own: `c` may be a short verb, but `c ls` is never one.
    if command.words.len() > 1
        && let Some(word) = command.words.first_mut()
        && let Some((noun, _)) = NOUNS.iter().find(|(_, aliases)| aliases.contains(&word.text.as_str()))
    {
        word.text = (*noun).to_owned();
    }
    Ok(())
}

/// `ctr -n NS …` names the namespace of this file, or the line was meant for another one.
fn namespace_flag(ns: &Ns, command: &mut Command) -> Result<()> {
    let Some(first) = command.words.first().cloned() else { return Ok(()) };
    let (flag, value) = match first.text.split_once('=') {
        Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
        None => (first.text.clone(), None),
    };
    if !matches!(flag.as_str(), "-n" | "--namespace") {
        return Ok(());
    }
    command.words.remove(0);
    let (given, at) = match value {
        Some(value) => (value, first.at),
        None if command.words.is_empty() => (String::new(), command.line.len()),
        None => {
            let word = command.words.remove(0);
            (word.text, word.at)
        }
    };
    if given != ns.name() {
        let error = format!("{given}: this is the ctl of {}; write to namespaces/{given}/ctl", ns.name());
        return Err(Error::new(Kind::Invalid, error).at(&command.line, at));
    }
    Ok(())
}

/// `label KEY=VALUE…` of any object: an empty value takes the label away.
pub const fn label<T: Object>() -> Verb<T> {
    crate::node::verb::verb("label", "KEY=VALUE…", "Sets labels; `KEY=` takes one away.", |object: &T, command| {
        for (key, value) in pairs(command, &command.words)? {
            object.set_label(&key, Some(value.as_str()).filter(|value| !value.is_empty()))?;
        }
        Ok(())
    })
}

/// Words that are labels, `KEY=VALUE`.
fn pairs(command: &Command, words: &[Word]) -> Result<LabelChanges> {
    if words.is_empty() {
        return fail!(Invalid, "a label, as KEY=VALUE, must be given");
    }
    let pair = |word: &Word| pair(&word.text).map_err(|error| error.at(&command.line, word.at));
    words.iter().map(pair).collect()
}

/// One label that is set or, without a value, taken away.
pub fn one_label(key: &str, value: Option<&str>) -> LabelChanges {
    LabelChanges::from([(key.to_owned(), value.unwrap_or_default().to_owned())])
}

/// The same texts as labels, where there may be none.
fn labels(texts: &[String]) -> Result<LabelChanges> {
    texts.iter().map(|text| pair(text)).collect()
}

fn pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => fail!(Invalid, "{text}: a label is KEY=VALUE"),
    }
}
