//! `/namespaces/<namespace>/ctl`: `content …`.

use super::pairs;
use crate::containerd::Digest;
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::command::{Command, Word};
use crate::node::verb::{Verb, verb};
use crate::run::content::{self, IngestArgs};
use crate::run::pull::{self, FetchArgs};
use crate::tree::namespace::Ns;

pub const VERBS: &[Verb<Ns>] = &[
    verb(
        "content fetch",
        "[FLAG…] REFERENCE",
        "Fetches all content of an image and unpacks nothing.",
        |ns: &Ns, command| {
            let args: FetchArgs = command.parse()?;
            ns.job(command, |namespace, progress| pull::fetch(namespace, &args, progress)).map(drop)
        },
    )
    .secret(super::images::SECRET),
    verb(
        "content ingest",
        "[--expected-size N] [--expected-digest D] REF [FILE]",
        "Makes a blob of a file of this host, or of what is written to `ingests/REF/data`.",
        |ns: &Ns, command| {
            let args: IngestArgs = command.parse()?;
            if args.file.is_none() {
                return ns.shared.waiting.begin(&ns.namespace, &args);
            }
            ns.job(command, |namespace, progress| content::ingest(namespace, &args, progress)).map(drop)
        },
    ),
    verb(
        "content label",
        "DIGEST KEY=VALUE…",
        "Sets labels of a blob; `KEY=` takes one away.",
        |ns: &Ns, command| {
            let Some((first, words)) = command.words.split_first() else {
                return fail!(Invalid, "a digest must be given");
            };
            ns.namespace.label_blob(&digest(command, first)?, &pairs(command, words)?)
        },
    ),
    verb("content delete", "DIGEST…", "Deletes blobs, whatever refers to them.", |ns: &Ns, command| {
        if command.words.is_empty() {
            return fail!(Invalid, "a digest must be given");
        }
        let digests: Vec<Digest> = command.words.iter().map(|word| digest(command, word)).collect::<Result<_>>()?;
        digests.iter().try_for_each(|digest| ns.namespace.delete_content(digest))
    })
    .or(&["content rm", "content remove", "content del"]),
    verb("content abort", "REF…", "Drops what was written and never committed.", |ns: &Ns, command| {
        if command.words.is_empty() {
            return fail!(Invalid, "a reference must be given");
        }
        command.texts().iter().try_for_each(|reference| ns.namespace.abort_ingest(reference))
    }),
];

fn digest(command: &Command, word: &Word) -> Result<Digest> {
    let bad = || Error::new(Kind::Invalid, format!("{}: no digest", word.text)).at(&command.line, word.at);
    Digest::parse(&word.text).ok_or_else(bad)
}
