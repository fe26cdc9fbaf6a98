//! A containerd, a namespace in it that no other test uses, and a mount.

use super::{Containerd, Mount, Version, images, shell};
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

pub struct World {
    // The mount goes first when the world is dropped.
    mount: OnceLock<Mount>,
    pub containerd: Arc<Containerd>,
    pub namespace: String,
}

impl World {
    /// A new namespace of the containerd that the tests of this process share.
    pub fn new(version: Version) -> World {
        World::of(Containerd::shared(version))
    }

    /// A containerd of its own.
    pub fn alone(version: Version) -> World {
        World::of(Arc::new(Containerd::start(version)))
    }

    /// A containerd whose files only it sees, as in a container.
    pub fn apart(version: Version) -> World {
        World::of(Arc::new(Containerd::start_apart(version)))
    }

    /// A containerd for which cgroups are those of version 2 alone.
    pub fn unified(version: Version) -> World {
        World::of(Arc::new(Containerd::start_unified(version)))
    }

    /// A containerd with snapshots that are file systems in files, where this version has them.
    pub fn blocks(version: Version) -> World {
        World::of(Arc::new(Containerd::start_with_blocks(version)))
    }

    fn of(containerd: Arc<Containerd>) -> World {
        let namespace = containerd.new_namespace();
        containerd.ctr("default", &["namespaces", "create", &namespace]);
        World { mount: OnceLock::new(), containerd, namespace }
    }

    pub fn version(&self) -> Version {
        self.containerd.version
    }

    /// The mount of this world, made when it is first asked for.
    #[track_caller]
    pub fn mount(&self) -> &Mount {
        self.mount.get_or_init(|| Mount::new(&self.containerd, &[]))
    }

    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> String {
        self.containerd.ctr(&self.namespace, args)
    }

    /// Imports the smallest image that runs; its reference.
    #[track_caller]
    pub fn tiny(&self) -> &'static str {
        let tar = images::tiny(&self.containerd.dir);
        self.ctr(&["images", "import", "--base-name", "docker.io/library/tiny", tar.to_str().unwrap()]);
        "docker.io/library/tiny:latest"
    }

    /// Imports an image of three layers from Debian packages; its reference.
    #[track_caller]
    pub fn debian(&self) -> &'static str {
        let tar = images::debian();
        self.ctr(&["images", "import", "--base-name", "docker.io/library/hello", tar.to_str().unwrap()]);
        "docker.io/library/hello:latest"
    }

    /// Starts a container that sleeps; its id. `args` come before the image and may be empty.
    #[track_caller]
    pub fn sleeper(&self, image: &str, args: &[&str]) -> String {
        let id = self.new_id("sleeper");
        let fifos = self.containerd.dir.join("fifo");
        let mut command = vec!["run", "-d", "--fifo-dir", fifos.to_str().unwrap()];
        command.extend(args);
        command.extend([image, &id, "sleep", "1000000"]);
        self.ctr(&command);
        id
    }

    /// A container id that nobody else uses.
    pub fn new_id(&self, name: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// `namespaces/<the namespace>/<path>`, as seen from the mount point.
    pub fn path(&self, path: &str) -> String {
        format!("namespaces/{}/{path}", self.namespace)
    }

    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        self.mount().read(&self.path(path))
    }

    /// A file that holds one value: without its newline, which has to be there.
    #[track_caller]
    pub fn value(&self, path: &str) -> String {
        let text = self.read(path);
        text.strip_suffix('\n').unwrap_or_else(|| panic!("{path} does not end with a newline: {text:?}")).to_owned()
    }

    #[track_caller]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.mount().bytes(&self.path(path))
    }

    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.bytes(path)).unwrap_or_else(|error| panic!("{path} is no JSON: {error}"))
    }

    #[track_caller]
    pub fn ls(&self, path: &str) -> Vec<String> {
        self.mount().ls(&self.path(path))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.mount().exists(&self.path(path))
    }

    #[track_caller]
    pub fn link(&self, path: &str) -> String {
        self.mount().link(&self.path(path))
    }

    /// Where a path leads, all symlinks followed, from this namespace's directory.
    #[track_caller]
    pub fn resolved(&self, path: &str) -> String {
        let mount = self.mount();
        let real = std::fs::canonicalize(mount.at_path(&self.path(path))).unwrap_or_else(|e| panic!("{path}: {e}"));
        let home = mount.at_path(&self.path(""));
        let inside = real.strip_prefix(&home).unwrap_or_else(|_| panic!("{path} leads out of the namespace: {real:?}"));
        inside.to_str().unwrap().to_owned()
    }

    pub fn xattr(&self, path: &str, name: &str) -> Result<String, i32> {
        self.mount().xattr(&self.path(path), name)
    }

    /// Runs a script in the namespace's directory of the mount; `$M` is the mount point.
    #[track_caller]
    pub fn sh(&self, script: &str, seconds: u64) -> shell::Shell {
        let home = self.mount().at_path(&self.path(""));
        shell::sh(
            &format!("cd \"$N\" && {script}"),
            &[("M", self.mount().path.to_str().unwrap()), ("N", home.to_str().unwrap())],
            seconds,
        )
    }
}
