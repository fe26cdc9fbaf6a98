//! The default seccomp profile: which system calls a container may use, as the `ctr` of each version decides it.

use super::Age;
use serde_json::{Value, json};

/// Allowed to everybody, in the newest version's order.
const ALLOWED: &str = include_str!("syscalls");

/// Of these, what came after 1.6.
const SINCE_1_7: [&str; 7] =
    ["cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack", "name_to_handle_at"];

/// Allowed until 2.0, before `ipc`.
const IO_URING: [&str; 3] = ["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// What a capability allows beyond; in the order of the capabilities of the process.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The namespaces that `clone` may not make without CAP_SYS_ADMIN.
const NAMESPACES: u32 = 0x7e02_0000;

fn allow(names: &[&str]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ALLOW"})
}

fn allow_if(name: &str, index: u32, value: u32, op: &str) -> Value {
    let arg = json!({"index": index, "value": value, "op": op});
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg]})
}

fn everybody(age: Age) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in ALLOWED.split_whitespace() {
        if age == Age::V1_6 && SINCE_1_7.contains(&name) {
            continue;
        }
        if age < Age::V2 && name == "ipc" {
            names.extend(IO_URING);
        }
        if age == Age::V1_6 && name == "socketcall" {
            names.push("socket");
        }
        names.push(name);
    }
    names
}

fn of_capability(capability: &str, age: Age) -> Option<Vec<&'static str>> {
    let (_, names) = BY_CAPABILITY.iter().find(|(name, _)| *name == capability)?;
    let mut names: Vec<&str> = names.split_whitespace().collect();
    if age == Age::V1_6 {
        names.retain(|name| *name != "set_mempolicy_home_node");
        if capability == "CAP_SYS_ADMIN" {
            let at = names.iter().position(|name| *name == "open_tree").unwrap_or(names.len());
            names.insert(at, "name_to_handle_at");
        }
    }
    Some(names)
}

/// The profile for a process with these capabilities.
pub fn profile(capabilities: &[String], age: Age) -> Value {
    let mut syscalls = vec![allow(&everybody(age))];
    if age > Age::V1_6 {
        syscalls.push(allow_if("socket", 0, libc::AF_VSOCK as u32, "SCMP_CMP_NE"));
    }
    for persona in [0, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        syscalls.push(allow_if("personality", 0, persona, "SCMP_CMP_EQ"));
    }
    syscalls.push(match age {
        Age::V1_6 => allow(&["ptrace"]),
        _ => allow(&["process_vm_readv", "process_vm_writev", "ptrace"]),
    });
    let (architectures, own): (&[&str], &[&str]) = match std::env::consts::ARCH {
        "x86_64" => (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], &["arch_prctl", "modify_ldt"]),
        "aarch64" => (
            &["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"],
            &["arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls"],
        ),
        "riscv64" => (&["SCMP_ARCH_RISCV64"], &["riscv_flush_icache"]),
        "s390x" => (
            &["SCMP_ARCH_S390", "SCMP_ARCH_S390X"],
            &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"],
        ),
        "powerpc64" => (&[], &["sync_file_range2", "swapcontext"]),
        _ => (&[], &[]),
    };
    if !own.is_empty() {
        syscalls.push(allow(own));
    }
    for capability in capabilities {
        syscalls.extend(of_capability(capability, age).map(|names| allow(&names)));
    }
    if !capabilities.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
        let index = u32::from(std::env::consts::ARCH == "s390x");
        syscalls.push(allow_if("clone", index, NAMESPACES, "SCMP_CMP_MASKED_EQ"));
        // glibc then falls back to clone, whose flags can be looked at.
        syscalls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    let mut profile = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    if !architectures.is_empty() {
        profile["architectures"] = json!(architectures);
    }
    profile["syscalls"] = json!(syscalls);
    profile
}
