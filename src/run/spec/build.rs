//! From flags and an image to a spec, in the order in which `ctr` applies them.

use super::edit::{at, list, remove, set, strings};
use super::flags::{self, CreateArgs, host_file, pair};
use super::user::{Read, add_groups, set_user};
use super::{Age, device, seccomp};
use crate::containerd::ImageConfig;
use crate::error::{Error, Kind, Result};
use crate::fail;
use serde_json::{Value, json};
use std::path::Path;

/// The longest file that a flag names.
const FILE_BYTES: u64 = 8 << 20;

/// The search path of an image that sets no environment.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a spec is made for.
pub struct Target<'a> {
    /// The version of containerd.
    pub version: &'a str,
    pub namespace: &'a str,
    pub id: &'a str,
    /// The image's config; none for a root filesystem of the user's own.
    pub image: Option<&'a ImageConfig>,
    /// That root filesystem.
    pub rootfs: Option<&'a str>,
    /// The command, where it is not the image's.
    pub command: &'a [String],
    /// Reads a file of the container's root filesystem.
    pub read: Read<'a>,
}

/// The spec of a container.
pub fn build(args: &CreateArgs, target: &Target<'_>) -> Result<Value> {
    let mut spec = match &args.config {
        Some(path) => {
            let bytes = host_file("--config", path, FILE_BYTES)?;
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::caused(Kind::Invalid, format!("--config {path}: this is no OCI spec: {e}"), e))?
        }
        None => from_flags(args, target)?,
    };
    for (key, value) in flags::labels(&args.label) {
        set(&mut spec, &["annotations", &key], value);
    }
    Ok(spec)
}

fn from_flags(args: &CreateArgs, target: &Target<'_>) -> Result<Value> {
    let age = Age::of(target.version);
    let mut spec = super::default(target.version)
        .map_err(|e| Error::caused(Kind::Io, format!("the default spec cannot be read: {e}"), e))?;
    set(&mut spec, &["linux", "cgroupsPath"], format!("/{}/{}", target.namespace, target.id));
    default_devices(&mut spec);
    if let Some(path) = &args.env_file {
        let text = host_file("--env-file", path, FILE_BYTES)?;
        let lines = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect::<Vec<_>>();
        add_env(&mut spec, &lines);
    }
    add_env(&mut spec, &args.env);
    mounts(&mut spec, &args.mount, age)?;
    match (target.image, target.rootfs) {
        (Some(image), _) => {
            image_config(&mut spec, image, target.read)?;
            id_maps(&mut spec, args)?;
        }
        (None, Some(rootfs)) => set(&mut spec, &["root", "path"], rootfs),
        (None, None) => {}
    }
    process(&mut spec, args, target)?;
    privileges(&mut spec, args, age)?;
    resources(&mut spec, args);
    for word in &args.with_ns {
        join(&mut spec, word)?;
    }
    if args.allow_new_privs {
        remove(&mut spec, &["process", "noNewPrivileges"]);
    }
    match args.cgroup.as_deref() {
        Some("") => remove(&mut spec, &["linux", "cgroupsPath"]),
        Some(path) => set(&mut spec, &["linux", "cgroupsPath"], path),
        None => {}
    }
    for path in &args.device {
        let devices = device::devices(Path::new(path))?;
        let rules: Vec<Value> = devices.iter().map(device::rule).collect();
        list(&mut spec, &["linux", "devices"], |all| all.extend(devices));
        list(&mut spec, &["linux", "resources", "devices"], |all| all.extend(rules));
    }
    if let Some(propagation) = &args.rootfs_propagation {
        set(&mut spec, &["linux", "rootfsPropagation"], propagation.as_str());
    }
    if let Some(class) = &args.rdt_class {
        set(&mut spec, &["linux", "intelRdt", "closID"], class.as_str());
    }
    if let Some(name) = args.hostname.as_deref().filter(|name| !name.is_empty()) {
        set(&mut spec, &["hostname"], name);
    }
    Ok(spec)
}

/// What any container may use.
fn default_devices(spec: &mut Value) {
    const NUMBERS: [(u32, Option<u32>); 9] = [
        (1, Some(3)),
        (1, Some(8)),
        (1, Some(7)),
        (5, Some(0)),
        (1, Some(5)),
        (1, Some(9)),
        (5, Some(1)),
        (136, None),
        (5, Some(2)),
    ];
    list(spec, &["linux", "resources", "devices"], |all| {
        for (major, minor) in NUMBERS {
            let mut rule = json!({"allow": true, "type": "c", "major": major});
            if let Some(minor) = minor {
                rule["minor"] = json!(minor);
            }
            rule["access"] = json!("rwm");
            all.push(rule);
        }
    });
}

/// Sets variables by name; one without a value takes its variable away.
fn merged_env(defaults: Vec<String>, over: &[String]) -> Vec<String> {
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let mut all = defaults;
    for word in over {
        let known = all.iter().rposition(|known| name(known) == name(word));
        match (known, word.contains('=')) {
            (Some(at), true) => all[at] = word.clone(),
            (Some(at), false) => all[at] = String::new(),
            (None, true) => all.push(word.clone()),
            (None, false) => {}
        }
    }
    all.retain(|word| !word.is_empty());
    all
}

fn add_env(spec: &mut Value, words: &[String]) {
    if words.is_empty() {
        return;
    }
    let env = merged_env(strings(spec, "/process/env"), words);
    list(spec, &["process", "env"], |all| *all = env.into_iter().map(Value::from).collect());
}

/// `type=bind,src=/tmp,dst=/host,options=rbind:ro`, quoted as CSV is where a comma is in it.
fn mounts(spec: &mut Value, words: &[String], age: Age) -> Result<()> {
    let mut given = Vec::new();
    for word in words {
        let mut mount = json!({});
        for field in csv(word) {
            let (key, value) = pair("--mount", &field, '=')?;
            match key {
                "type" => mount["type"] = json!(value),
                "source" | "src" => mount["source"] = json!(value),
                "destination" | "dst" => mount["destination"] = json!(value),
                "options" => mount["options"] = json!(value.split(':').collect::<Vec<_>>()),
                _ => return fail!(Invalid, "--mount {word}: there is no {key}"),
            }
        }
        if mount["destination"].is_null() {
            return fail!(Invalid, "--mount {word}: it has no dst");
        }
        given.push(mount);
    }
    list(spec, &["mounts"], |all| {
        // Before 2.0 a mount comes on top of the one that is there.
        all.retain(|known| age < Age::V2 || !given.iter().any(|new| new["destination"] == known["destination"]));
        all.extend(given);
    });
    Ok(())
}

/// The fields of one line of CSV.
fn csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

fn image_config(spec: &mut Value, image: &ImageConfig, read: Read<'_>) -> Result<()> {
    let defaults = if image.env.is_empty() { vec![DEFAULT_PATH.to_owned()] } else { image.env.clone() };
    let env = merged_env(defaults, &strings(spec, "/process/env"));
    list(spec, &["process", "env"], |all| *all = env.into_iter().map(Value::from).collect());
    let args = image.entrypoint.iter().chain(&image.cmd).map(|arg| Value::from(arg.as_str()));
    list(spec, &["process", "args"], |all| *all = args.collect());
    let cwd = if image.working_dir.is_empty() { "/" } else { &image.working_dir };
    set(spec, &["process", "cwd"], cwd);
    if image.user.is_empty() {
        // Whoever the image is silent about is root, with root's groups.
        return add_groups(spec, "root", read);
    }
    set_user(spec, &image.user, read)?;
    let uid = at(spec, &["process", "user", "uid"]).to_string();
    add_groups(spec, &uid, read)
}

/// The parts of a mapping, `container:host:size`.
pub fn id_map(flag: &str, word: &str) -> Result<[u32; 3]> {
    let parts: Vec<u32> = word.split(':').filter_map(|part| part.parse().ok()).collect();
    match (parts[..].try_into(), word.split(':').count()) {
        (Ok(parts), 3) => Ok(parts),
        _ => fail!(Invalid, "{flag} {word}: write container-id:host-id:size"),
    }
}

fn id_maps(spec: &mut Value, args: &CreateArgs) -> Result<()> {
    if args.uidmap.is_empty() {
        return Ok(());
    }
    list(spec, &["linux", "namespaces"], |all| all.push(json!({"type": "user"})));
    for (flag, words, name) in [("--uidmap", &args.uidmap, "uidMappings"), ("--gidmap", &args.gidmap, "gidMappings")] {
        for word in words {
            let [container, host, size] = id_map(flag, word)?;
            let map = json!({"containerID": container, "hostID": host, "size": size});
            list(spec, &["linux", name], |all| all.push(map));
        }
    }
    Ok(())
}

fn process(spec: &mut Value, args: &CreateArgs, target: &Target<'_>) -> Result<()> {
    if args.read_only {
        set(spec, &["root", "readonly"], true);
    }
    if !target.command.is_empty() {
        set(spec, &["process", "args"], target.command.to_vec());
    }
    if let Some(cwd) = args.cwd.as_deref().filter(|cwd| !cwd.is_empty()) {
        set(spec, &["process", "cwd"], cwd);
    }
    if let Some(user) = args.user.as_deref().filter(|user| !user.is_empty()) {
        set_user(spec, user, target.read)?;
        add_groups(spec, user, target.read)?;
    }
    if args.tty {
        set(spec, &["process", "terminal"], true);
        list(spec, &["process", "env"], |all| all.push("TERM=xterm".into()));
    }
    Ok(())
}

fn privileges(spec: &mut Value, args: &CreateArgs, age: Age) -> Result<()> {
    if args.privileged {
        privileged(spec)?;
        if !args.privileged_without_host_devices {
            let devices = device::devices(Path::new("/dev"))?;
            set(spec, &["linux", "resources", "devices"], json!([{"allow": true, "access": "rwm"}]));
            list(spec, &["linux", "devices"], |all| all.extend(devices));
        }
    }
    if args.net_host {
        list(spec, &["linux", "namespaces"], |all| all.retain(|ns| ns["type"] != "network"));
        for file in ["/etc/hosts", "/etc/resolv.conf"] {
            let options = ["rbind", "ro"];
            let mount = json!({"destination": file, "type": "bind", "source": file, "options": options});
            list(spec, &["mounts"], |all| all.push(mount));
        }
        add_env(spec, &[format!("HOSTNAME={}", hostname()?)]);
    }
    for word in &args.annotation {
        let (key, value) = pair("--annotation", word, '=')?;
        set(spec, &["annotations", key], value);
    }
    capabilities(spec, args)?;
    if let Some(path) = &args.seccomp_profile {
        let bytes = host_file("--seccomp-profile", path, FILE_BYTES)?;
        let profile: Value = serde_json::from_slice(&bytes)
            .map_err(|e| Error::caused(Kind::Invalid, format!("--seccomp-profile {path}: {e}"), e))?;
        set(spec, &["linux", "seccomp"], profile);
    } else if args.seccomp {
        let bounding = strings(spec, "/process/capabilities/bounding");
        set(spec, &["linux", "seccomp"], seccomp::profile(&bounding, age));
    }
    if let Some(name) = &args.apparmor_default_profile {
        let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
        if !loaded.lines().any(|line| line.split(' ').next() == Some(name)) {
            return fail!(
                Unsupported,
                "--apparmor-default-profile {name}: it is not loaded, and ctrfs loads none; load it with apparmor_parser"
            );
        }
    }
    if let Some(name) = args.apparmor_default_profile.as_ref().or(args.apparmor_profile.as_ref()) {
        set(spec, &["process", "apparmorProfile"], name.as_str());
    }
    Ok(())
}

fn hostname() -> Result<String> {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is as long as it is said to be.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

const SETS: [&str; 3] = ["bounding", "effective", "permitted"];

fn privileged(spec: &mut Value) -> Result<()> {
    let all = super::capability::current()?;
    for set_ in SETS {
        set(spec, &["process", "capabilities", set_], all.clone());
    }
    remove(spec, &["linux", "maskedPaths"]);
    remove(spec, &["linux", "readonlyPaths"]);
    remove(spec, &["linux", "seccomp"]);
    let mounts = at(spec, &["mounts"]).as_array_mut();
    for mount in mounts.into_iter().flatten().filter(|mount| mount["type"] == "sysfs" || mount["type"] == "cgroup") {
        for option in mount["options"].as_array_mut().into_iter().flatten().filter(|option| *option == "ro") {
            *option = json!("rw");
        }
    }
    Ok(())
}

fn capabilities(spec: &mut Value, args: &CreateArgs) -> Result<()> {
    for (flag, words) in [("--cap-add", &args.cap_add), ("--cap-drop", &args.cap_drop)] {
        if let Some(word) = words.iter().find(|word| !word.starts_with("CAP_")) {
            return fail!(Invalid, "{flag} {word}: capabilities are written with CAP_ before them");
        }
    }
    for name in SETS {
        list(spec, &["process", "capabilities", name], |all| {
            for capability in &args.cap_add {
                if !all.contains(&json!(capability)) {
                    all.push(json!(capability));
                }
            }
            all.retain(|capability| !args.cap_drop.iter().any(|dropped| capability == dropped));
        });
    }
    Ok(())
}

fn resources(spec: &mut Value, args: &CreateArgs) {
    for (path, value) in args.limits.of_new().resources() {
        set(spec, &[&["linux", "resources"], &path[..]].concat(), value);
    }
}

/// `--with-ns network:/proc/7/ns/net`.
fn join(spec: &mut Value, word: &str) -> Result<()> {
    let (kind, path) = pair("--with-ns", word, ':')?;
    if !["pid", "network", "uts", "mount", "user", "ipc", "cgroup"].contains(&kind) {
        return fail!(Invalid, "--with-ns {word}: there is no namespace of type {kind}");
    }
    let namespace = json!({"type": kind, "path": path});
    list(spec, &["linux", "namespaces"], |all| match all.iter_mut().find(|known| known["type"] == kind) {
        Some(known) => *known = namespace,
        None => all.push(namespace),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_a_value_goes() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(merged_env(words("A=1 B=2"), &words("B C=3 A=4 D")), ["A=4", "C=3"]);
    }

    #[test]
    fn a_mount_is_a_line_of_csv() {
        assert_eq!(csv(r#"type=bind,"src=/a,""b""",dst=/c"#), ["type=bind", "src=/a,\"b\"", "dst=/c"]);
        let mut spec = json!({"mounts": [{"destination": "/run"}]});
        mounts(&mut spec, &["type=tmpfs,dst=/run,options=rw:size=1m".into()], Age::V2).unwrap();
        assert_eq!(spec["mounts"], json!([{"type": "tmpfs", "destination": "/run", "options": ["rw", "size=1m"]}]));
        assert!(mounts(&mut spec, &["what=1".into()], Age::V2).is_err());
        assert!(mounts(&mut spec, &["type=bind".into()], Age::V2).is_err());
    }
}
