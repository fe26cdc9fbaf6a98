//! Who asks a registry: tokens, and where people keep their passwords.

use super::pull::unique;
use crate::common::registry::{Kind, Registry, USER};
use crate::common::{Mount, World};
use std::os::unix::fs::PermissionsExt;

/// A registry that sends its clients to a server of tokens is pulled from and pushed to by who has the password, and by
/// nobody else.
fn tokens(world: &World) {
    let registry = Registry::start(Kind::Token);
    let (layout, target) = unique(world, 300);
    let image = registry.put(&layout, &target, "a/tiny:1");
    assert_eq!(world.refused("", &format!("images pull {image}")), libc::EACCES);
    assert_eq!(world.refused("", &format!("images pull --user me:wrong {image}")), libc::EACCES);
    registry.asked.lock().unwrap().clear();
    world.order("", &format!("images pull --user {USER} {image}"));
    assert_eq!(world.value(&format!("images/{image}/digest")), target["digest"].as_str().unwrap());
    let asked = registry.asked.lock().unwrap().join("\n");
    assert!(asked.contains("me GET /token?") && asked.contains("a%2Ftiny"), "{asked}");
    let remote = registry.reference("b/pushed:1");
    assert_eq!(world.refused("", &format!("images push {remote} {image}")), libc::EACCES);
    world.order("", &format!("images push --user {USER} {remote} {image}"));
    world.order("", &format!("images delete --sync {image}"));
    world.order("", &format!("images pull --user {USER} {remote}"));
    let seen = world.sh("cat jobs/*/command jobs/*/progress error $M/.ctrfs/error_log", 10).out;
    assert!(!seen.contains("s3cret") && !seen.contains("wrong"), "{seen}");
}

/// A credential helper is asked for the host, as `docker` asks it: for one registry, or for all; one that knows nothing of
/// it, fails or is not there is told of.
fn helpers(world: &World) {
    let registry = Registry::start(Kind::Closed);
    let (layout, target) = unique(world, 1);
    let image = registry.put(&layout, &target, "tiny:1");
    let dir = registry.dir.path().join("docker");
    std::fs::create_dir(&dir).unwrap();
    let (user, password) = USER.split_once(':').unwrap();
    let helper = |name: &str, script: &str| {
        let path = dir.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\nread host; echo \"$1 $host\" >>{}/asked\n{script}\n", dir.display()))
            .unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    helper(
        "good",
        &format!(
            "[ \"$host\" = {} ] && echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}' || {{ echo credentials not found in native keychain; exit 1; }}",
            registry.host
        ),
    );
    helper("empty", "echo credentials not found in native keychain; exit 1");
    helper("broken", "echo the keychain is locked; exit 1");
    helper("token", "echo '{\"Username\":\"<token>\",\"Secret\":\"t0p\"}'");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let mount = Mount::with_env(&world.containerd, &[("DOCKER_CONFIG", dir.to_str().unwrap()), ("PATH", &path)]);
    // The daemon reads it each time.
    let pull = |config: String| {
        std::fs::write(dir.join("config.json"), config).unwrap();
        let script = format!("cd $M/{} && echo images pull {image} >ctl; echo $?; cat error", world.path(""));
        let done = mount.sh(&script, 30);
        (done.out, done.err)
    };
    let host = &registry.host;
    for config in [
        format!("{{\"credHelpers\": {{\"{host}\": \"good\"}}, \"credsStore\": \"broken\"}}"),
        format!("{{\"auths\": {{\"{host}\": {{}}}}, \"credsStore\": \"good\"}}"),
    ] {
        let (out, err) = pull(config.clone());
        assert_eq!(out, "0\nok\n", "{config}: {err}");
        world.ctr(&["images", "rm", "--sync", &image]);
    }
    let asked = std::fs::read_to_string(dir.join("asked")).unwrap();
    assert!(asked.lines().all(|line| line.starts_with("get ")) && asked.contains(&format!("get {host}\n")), "{asked}");
    for (helper, why) in [
        ("empty", "Permission denied"),
        ("broken", "the keychain is locked"),
        ("token", "identity tokens are not supported"),
        ("nosuch", "docker-credential-nosuch"),
        ("../evil", "is no name of a credential helper"),
    ] {
        let (out, err) = pull(format!("{{\"credHelpers\": {{\"{host}\": \"{helper}\"}}}}"));
        assert!(out.starts_with("1\n") && (out.contains(why) || err.contains(why)), "{helper}: {out} {err}");
        assert!(!out.contains("t0p"), "{out}");
    }
}

crate::each_version!(tokens, helpers);
