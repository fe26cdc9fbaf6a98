//! `/namespaces/<namespace>/ctl`: `images …`, and what an image's own `ctl` does.

use crate::error::Result;
use crate::fail;
use crate::node::Sink;
use crate::node::command::Command;
use crate::node::verb::{Verb, verb};
use crate::run::convert::{self, ConvertArgs};
use crate::run::export::{self, ExportArgs};
use crate::run::image::{self, DeleteArgs, LabelArgs, PruneArgs, TagArgs, UnpackArgs};
use crate::run::import::{self, ImportArgs, ImportFlags};
use crate::run::pull::{self, PullArgs};
use crate::run::push::{self, PushArgs};
use crate::tree::namespace::Ns;

/// Flags whose values are shown nowhere.
pub const SECRET: &[&str] = &["--user", "-u", "--refresh"];

pub const VERBS: &[Verb<Ns>] = &[
    verb("images pull", "[FLAG…] REFERENCE", "Pulls an image from a registry and unpacks it.", |ns: &Ns, command| {
        let args: PullArgs = command.parse()?;
        ns.job(command, |namespace, progress| pull::pull(namespace, &args, progress)).map(drop)
    })
    .secret(SECRET)
    .or(&["pull"]),
    verb(
        "images import",
        "[FLAG…] FILE",
        "Imports the images of an archive; one can also be written to `import`.",
        |ns: &Ns, command| {
            let args: ImportArgs = command.parse()?;
            ns.job(command, |namespace, progress| import::import_file(namespace, &args, progress)).map(drop)
        },
    )
    .or(&["import"]),
    verb("images push", "[FLAG…] REMOTE [IMAGE]", "Pushes an image to a registry.", |ns: &Ns, command| {
        let args: PushArgs = command.parse()?;
        let (remote, local) = match &args.names[..] {
            [remote] => (remote, remote),
            [remote, local] => (remote, local),
            _ => return fail!(Invalid, "where to, and the image if that has another name, must be given"),
        };
        ns.job(command, |namespace, progress| push::push(namespace, remote, local, &args, progress))
    })
    .secret(SECRET)
    .or(&["push"]),
    verb(
        "images export",
        "[FLAG…] FILE IMAGE…",
        "Writes images into an archive on this host.",
        |ns: &Ns, command| {
            let args: ExportArgs = command.parse()?;
            match args.names.split_first() {
                Some((file, images)) => ns.job(command, |namespace, progress| {
                    export::export(namespace, file.as_ref(), images, &args, progress)
                }),
                None => fail!(Invalid, "a file and an image must be given"),
            }
        },
    )
    .or(&["export"]),
    verb(
        "images convert",
        "--uncompress|--gzip|--zstd|--oci SOURCE TARGET",
        "Makes the same image with other layers.",
        |ns: &Ns, command| {
            let args: ConvertArgs = command.parse()?;
            let [source, target] = &args.names[..] else {
                return fail!(Invalid, "an image and the new one's name must be given");
            };
            ns.job(command, |namespace, progress| convert::convert(namespace, source, target, &args, progress))
        },
    ),
    verb("images tag", "[--force] SOURCE TARGET…", "Gives an image further names.", |ns: &Ns, command| {
        let args: TagArgs = command.parse()?;
        match args.names.split_first() {
            Some((source, targets)) => image::tag(&ns.namespace, source, targets, args.force),
            None => fail!(Invalid, "an image must be given"),
        }
    })
    .or(&["tag"]),
    verb("images rename", "[--force] SOURCE TARGET", "Gives an image another name.", |ns: &Ns, command| {
        let args: TagArgs = command.parse()?;
        match &args.names[..] {
            [source, target] => image::rename(&ns.namespace, source, target, args.force),
            _ => fail!(Invalid, "an image and its new name must be given"),
        }
    }),
    verb("images delete", "[--sync] IMAGE…", "Deletes images.", |ns: &Ns, command| {
        let args: DeleteArgs = command.parse()?;
        image::delete(&ns.namespace, &args.names, args.sync)
    })
    .or(&["images rm", "images remove", "images del"]),
    verb("images prune", "--all", "Deletes all images that no container was made from.", |ns: &Ns, command| {
        let args: PruneArgs = command.parse()?;
        ns.job(command, |namespace, progress| image::prune(namespace, &args, progress))
    }),
    verb(
        "images label",
        "[--replace-all] IMAGE KEY=VALUE…",
        "Sets labels of an image; `KEY=` takes one away.",
        |ns: &Ns, command| image::label(&ns.namespace, &command.parse::<LabelArgs>()?),
    ),
    verb(
        "images unpack",
        "[--snapshotter SN] [--platform P] IMAGE…",
        "Unpacks images that are here.",
        |ns: &Ns, command| {
            let args: UnpackArgs = command.parse()?;
            if args.names.is_empty() {
                return fail!(Invalid, "an image must be given");
            }
            ns.job(command, |namespace, progress| {
                args.names.iter().try_for_each(|name| image::unpack(namespace, name, &args, progress))
            })
        },
    ),
];

/// What an image's own `ctl` does: the same, without its name.
pub fn tag(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: TagArgs = command.parse()?;
    image::tag(&ns.namespace, name, &args.names, args.force)
}

/// `push [REMOTE]`
pub fn push(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: PushArgs = command.parse()?;
    let remote = match &args.names[..] {
        [] => name,
        [remote] => remote,
        [_, more, ..] => return fail!(Invalid, "{more}: this is the ctl of {name}, and pushes that"),
    };
    ns.job(command, |namespace, progress| push::push(namespace, remote, name, &args, progress))
}

/// `export FILE`
pub fn export(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: ExportArgs = command.parse()?;
    let [file] = &args.names[..] else { return fail!(Invalid, "one file must be given") };
    let images = [name.to_owned()];
    ns.job(command, |namespace, progress| export::export(namespace, file.as_ref(), &images, &args, progress))
}

/// `convert TARGET`
pub fn convert(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: ConvertArgs = command.parse()?;
    let [target] = &args.names[..] else { return fail!(Invalid, "the new image's name must be given") };
    ns.job(command, |namespace, progress| convert::convert(namespace, name, target, &args, progress))
}

/// `rename NAME`
pub fn rename(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: TagArgs = command.parse()?;
    match &args.names[..] {
        [target] => image::rename(&ns.namespace, name, target, args.force),
        _ => fail!(Invalid, "one new name must be given"),
    }
}

/// `delete [--sync]`
pub fn delete(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: DeleteArgs = command.parse()?;
    match &args.names[..] {
        [] => ns.namespace.delete_image(name, args.sync),
        [more, ..] => fail!(Invalid, "{more}: this is the ctl of {name}, and deletes that"),
    }
}

/// `unpack`
pub fn unpack(ns: &Ns, name: &str, command: &Command) -> Result<()> {
    let args: UnpackArgs = command.parse()?;
    if let Some(more) = args.names.first() {
        return fail!(Invalid, "{more}: this is the ctl of {name}, and unpacks that");
    }
    ns.job(command, |namespace, progress| image::unpack(namespace, name, &args, progress))
}

/// `import`: an archive that is written.
pub fn incoming(ns: &Ns) -> Result<Option<Box<dyn Sink>>> {
    Ok(Some(Box::new(Incoming { ns: ns.clone(), stream: None, taken: 0 })))
}

/// Begins when something is written.
struct Incoming {
    ns: Ns,
    stream: Option<import::Stream>,
    taken: u64,
}

impl Sink for Incoming {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset != self.taken {
            return fail!(Invalid, "import: an archive is written from its beginning to its end");
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let ns = self.ns.clone();
                let job = move |work: &mut dyn FnMut(&crate::run::progress::Progress) -> Result<()>| {
                    ns.shared.engine.jobs.run(ns.namespace.name(), "import", work)
                };
                none.insert(import::Stream::start(&self.ns.namespace, ImportFlags::default(), job)?)
            }
        };
        stream.write(bytes)?;
        self.taken += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.stream.map_or(Ok(()), import::Stream::finish)
    }
}
