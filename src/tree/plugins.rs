//! `/plugins/<type>/<id>/`: what the server is made of (`ctr plugins ls -d`).

use super::Root;
use super::name::{self, Decoded};
use super::text::{Text, line};
use crate::containerd::Plugin;
use crate::error::Result;
use crate::node::row::{each, text};
use crate::node::{Dir, Each, Member, Object};
use std::borrow::Cow;
use std::collections::BTreeSet;

pub static PLUGINS: Dir<Root> = Dir {
    doc: "One directory a type of plugin.",
    rows: &[each(
        "<type>",
        "The plugins of one type.",
        &Each { list: types, find: find_type, member: Member::Dir(&TYPE) },
    )],
};

static TYPE: Dir<Type> = Dir {
    doc: "The plugins of one type.",
    rows: &[each("<id>", "One plugin.", &Each { list: plugins, find: find_plugin, member: Member::Dir(&PLUGIN) })],
};

static PLUGIN: Dir<Loaded> = Dir {
    doc: "One plugin.",
    rows: &[
        text("status", "`ok`, `skip`, or `error`: then `error` says why.", |loaded| line(loaded.status())),
        text("requires", "Types that it needs, one a line.", |loaded| lines(&loaded.plugin.requires)),
        text("platforms", "Platforms that it serves, one a line.", |loaded| {
            let spell = |p: &crate::containerd::Platform| {
                let parts = [p.os.as_str(), p.architecture.as_str(), p.variant.as_str()];
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
            };
            lines(&loaded.plugin.platforms.iter().map(spell).collect::<Vec<_>>())
        }),
        text("capabilities", "What it can do, one word a line.", |loaded| lines(&loaded.plugin.capabilities)),
        text("exports", "What it tells of itself, `key=value` a line.", |loaded| {
            let pairs = loaded.plugin.exports.iter().map(|(key, value)| format!("{key}={value}"));
            lines(&pairs.collect::<Vec<_>>())
        }),
        text("error", "Why it did not start.", |loaded| {
            loaded.plugin.init_error.as_ref().map_or(Ok(None), |(_, message)| line(message.trim_end()))
        }),
    ],
};

/// A type of plugin.
#[derive(Clone)]
struct Type {
    root: Root,
    name: String,
}

/// A plugin.
#[derive(Clone)]
struct Loaded {
    plugin: Plugin,
}

impl Object for Type {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.name).into()
    }
}

impl Object for Loaded {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.plugin.id).into()
    }
}

impl Loaded {
    /// The word of `ctr plugins ls`: a plugin that chose not to start says "skip plugin".
    fn status(&self) -> &'static str {
        match &self.plugin.init_error {
            None => "ok",
            Some((_, message)) if message.contains("skip plugin") => "skip",
            Some(_) => "error",
        }
    }
}

/// One a line; absent where there are none.
fn lines(values: &[String]) -> Text {
    if values.is_empty() { Ok(None) } else { line(values.join("\n")) }
}

fn types(root: &Root) -> Result<Vec<Type>> {
    let plugins = root.0.client.plugins()?;
    let names: BTreeSet<&str> = plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
    Ok(names.into_iter().map(|name| Type { root: root.clone(), name: name.to_owned() }).collect())
}

fn find_type(root: &Root, component: &str) -> Result<Option<Type>> {
    let Some(Decoded::Name(name)) = name::decode(component) else { return Ok(None) };
    let known = root.0.client.plugins()?.iter().any(|plugin| plugin.kind == name);
    Ok(known.then(|| Type { root: root.clone(), name }))
}

fn plugins(kind: &Type) -> Result<Vec<Loaded>> {
    let plugins = kind.root.0.client.plugins()?;
    let of_type = plugins.iter().filter(|plugin| plugin.kind == kind.name);
    Ok(of_type.map(|plugin| Loaded { plugin: plugin.clone() }).collect())
}

fn find_plugin(kind: &Type, component: &str) -> Result<Option<Loaded>> {
    Ok(plugins(kind)?.into_iter().find(|loaded| loaded.component() == component))
}
