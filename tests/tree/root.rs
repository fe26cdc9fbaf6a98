//! The root of the mount, `plugins/` and `.ctrfs/`: what `ctr version`, `info`, `oci spec` and `plugins ls` print.

use crate::common::{Version, World, mount, sh};

/// The root lists the files of the design and nothing that waits.
fn lists_what_is_there(world: &World) {
    let names = world.mount().ls("");
    let always =
        [".ctrfs", "CACHEDIR.TAG", "README", "events", "info.json", "namespaces", "plugins", "spec.json", "version"];
    for name in always {
        assert!(names.iter().any(|n| n == name), "{name} is missing in {names:?}");
    }
    let odd: Vec<_> = names.iter().filter(|n| !always.contains(&n.as_str()) && *n != "deprecations").collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(world.mount().exists("events.follow"), "a file that waits is found by name");
}

/// `version` is containerd's version and revision, as `ctr version` says.
fn version(world: &World) {
    let said = world.ctr(&["version"]);
    let server = said.split("Server:").nth(1).unwrap();
    let field = |name: &str| server.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().trim().to_owned();
    let text = world.mount().read("version");
    assert!(text.contains(&field("Version:")), "{text} lacks {}", field("Version:"));
    assert!(text.contains(&field("Revision:")), "{text} lacks {}", field("Revision:"));
}

/// `info.json` has the server's UUID, as `ctr version` prints it.
fn info(world: &World) {
    let said = world.ctr(&["version"]);
    let uuid = said.lines().find_map(|line| line.trim().strip_prefix("UUID:")).unwrap().trim();
    let info: serde_json::Value = serde_json::from_slice(&world.mount().bytes("info.json")).unwrap();
    assert!(info.to_string().contains(uuid), "{info} lacks {uuid}");
    if world.version() != Version::V1_6 {
        let pid = world.containerd.pid().unwrap().to_string();
        assert!(info.to_string().contains(&pid), "{info} lacks the pid {pid}");
    }
}

/// `spec.json` is the default specification that `ctr oci spec` prints.
fn spec(world: &World) {
    let mut theirs: serde_json::Value = serde_json::from_str(&world.ctr(&["oci", "spec"])).unwrap();
    let mut ours: serde_json::Value = serde_json::from_slice(&world.mount().bytes("spec.json")).unwrap();
    for spec in [&mut theirs, &mut ours] {
        // These follow the version of containerd's client library and the namespace asked in.
        spec.as_object_mut().unwrap().remove("ociVersion");
        let linux = spec["linux"].as_object_mut().unwrap();
        linux.remove("cgroupsPath");
        linux.remove("maskedPaths");
    }
    assert_eq!(ours, theirs);
}

/// Every plugin has a directory and the status that `ctr plugins ls` prints.
fn plugins(world: &World) {
    let table = world.ctr(&["plugins", "ls"]);
    let mut count = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [kind, id, platforms, status] = fields[..] else { continue };
        let dir = format!("plugins/{kind}/{id}");
        assert_eq!(world.mount().read(&format!("{dir}/status")), format!("{status}\n"), "{dir}");
        if platforms != "-" {
            let text = world.mount().read(&format!("{dir}/platforms"));
            assert_eq!(text.lines().collect::<Vec<_>>().join(","), platforms, "{dir}");
        }
        count += 1;
    }
    let kinds = world.mount().ls("plugins");
    let shown: usize = kinds.iter().map(|kind| world.mount().ls(&format!("plugins/{kind}")).len()).sum();
    assert_eq!(count, shown, "{table}");
    assert!(count > 20, "{table}");
}

/// Backups pass by, as the cache directory standard has it.
fn cachedir_tag(world: &World) {
    let text = world.mount().read("CACHEDIR.TAG");
    assert!(text.starts_with("Signature: 8a477f597d28d172789f06886806bc55"), "{text}");
}

/// `README` fits a screen and names things to try.
fn readme(world: &World) {
    let text = world.mount().read("README");
    assert!(text.contains("events.follow") && text.lines().count() <= 50, "{text}");
}

/// The daemon describes itself in `.ctrfs/`.
fn daemon(world: &World) {
    let mount = world.mount();
    assert!(mount.read(".ctrfs/version").contains(env!("CARGO_PKG_VERSION")));
    let status: serde_json::Value = serde_json::from_slice(&mount.bytes(".ctrfs/status.json")).unwrap();
    assert!(status.is_object());
    let metrics = mount.read(".ctrfs/metrics");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        assert!(name.starts_with("ctrfs_") && value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(metrics.lines().any(|line| line.starts_with("# TYPE")), "{metrics}");
    mount.read(".ctrfs/error_log");
}

/// The mount says what it is, and neither set-uid programs nor devices work in it.
fn mount_options(world: &World) {
    let (kind, options) = mount::mounted(&world.mount().path).unwrap();
    assert_eq!(kind, "fuse.ctrfs");
    for option in ["nosuid", "nodev"] {
        assert!(options.split(',').any(|o| o == option), "{options}");
    }
    let mode = world.mount().sh("stat -c %A \"$M\"; stat -f -c %s \"$M\"", 5).ok();
    assert!(mode.starts_with('d'), "{mode}");
}

/// A name that is not there is ENOENT, a file is no directory, a directory is no file.
fn errors(world: &World) {
    let mount = world.mount();
    assert_eq!(mount.errno("nonsense"), libc::ENOENT);
    assert_eq!(mount.errno("namespaces/nonsense"), libc::ENOENT);
    assert_eq!(mount.errno("plugins/nonsense/x"), libc::ENOENT);
    assert_eq!(mount.errno("version/x"), libc::ENOTDIR);
    assert_eq!(mount.errno("namespaces"), libc::EISDIR);
}

/// Nothing of it can be made, renamed, linked or removed by accident, and no attempt changes containerd.
fn refuses_accidents(world: &World) {
    world.tiny();
    crate::common::state::settle(&world.containerd);
    let before = crate::common::state::snapshot_state(&world.containerd);
    for command in [
        "rm -f \"$M/version\"",
        "rm -rf \"$M/namespaces\"",
        "find \"$M/namespaces\" -delete",
        "mv \"$M/version\" \"$M/other\"",
        "ln \"$M/version\" \"$M/other\"",
        "ln -s x \"$M/other\"",
        "mkdir \"$M/other\"",
        "touch \"$M/other\"",
        "echo x > \"$M/version\"",
        "truncate -s 0 \"$M/version\"",
        "chmod 0777 \"$M/version\"",
        "chown 1 \"$M/version\"",
    ] {
        let done = world.mount().sh(command, 20);
        assert_ne!(done.code, Some(0), "{command} succeeded");
        assert!(!done.err.contains("not implemented"), "{command}: ENOSYS turns it off for ever: {}", done.err);
    }
    assert_eq!(before, crate::common::state::snapshot_state(&world.containerd));
}

/// Help, version and the reference of the tree need no containerd.
#[test]
fn help_needs_no_containerd() {
    let binary = env!("CARGO_BIN_EXE_ctrfs");
    let help = sh(&format!("{binary} --help"), &[], 5).ok();
    for word in ["MOUNTPOINT", "--address", "--root", "--namespace", "--cache-dir", "--timeout", "--foreground"] {
        assert!(help.contains(word), "{word} is missing in the help: {help}");
    }
    let version = sh(&format!("{binary} --version"), &[], 5).ok();
    assert_eq!(version.trim(), format!("ctrfs {}", env!("CARGO_PKG_VERSION")));
    assert!(sh(&format!("{binary} --tree"), &[], 5).ok().contains("manifest.json"));
}

crate::each_version!(
    lists_what_is_there,
    version,
    info,
    spec,
    plugins,
    cachedir_tag,
    readme,
    daemon,
    mount_options,
    errors
);
crate::each_version_alone!(refuses_accidents);
