//! `/namespaces/<namespace>/ctl`: `namespaces …`: the namespace itself, and new ones.

use super::{labels, pairs};
use crate::error::Result;
use crate::fail;
use crate::node::verb::{Verb, verb};
use crate::tree::namespace::Ns;

pub const VERBS: &[Verb<Ns>] = &[
    super::label(),
    verb(
        "namespaces label",
        "NAME KEY=VALUE…",
        "Sets labels of this namespace; `KEY=` takes one away.",
        |ns: &Ns, command| {
            let Some((name, words)) = command.words.split_first() else {
                return fail!(Invalid, "a name must be given");
            };
            itself(ns, &name.text)?;
            ns.namespace.label(&pairs(command, words)?)
        },
    ),
    verb(
        "namespaces create",
        "NAME [KEY=VALUE…]",
        "Makes a namespace, as `mkdir` beside this one does.",
        |ns: &Ns, command| {
            let words = command.texts();
            let Some((name, rest)) = words.split_first() else { return fail!(Invalid, "a name must be given") };
            let rest: Vec<String> = rest.iter().map(|text| (*text).to_owned()).collect();
            ns.namespace.client().create_namespace(name, &labels(&rest)?)
        },
    )
    .or(&["namespaces c"]),
    verb("namespaces remove", "[NAME]", "Removes this namespace, if nothing is in it.", |ns: &Ns, command| {
        if !command.words.is_empty() {
            itself(ns, command.one("name")?)?;
        }
        ns.namespace.remove()
    })
    .or(&["namespaces rm", "namespaces delete", "delete"]),
];

fn itself(ns: &Ns, name: &str) -> Result<()> {
    match name == ns.name() {
        true => Ok(()),
        false => fail!(Invalid, "{name}: this is the ctl of {}; write to namespaces/{name}/ctl", ns.name()),
    }
}
