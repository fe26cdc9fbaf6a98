//! Who began something: written down beside it, so that another process can tell whether it goes on.

use std::sync::OnceLock;

/// A process, so that another one can tell whether it still runs.
#[derive(PartialEq, Eq)]
pub struct Owner {
    boot: String,
    /// The pid namespace, in which the process can be looked for.
    pidns: String,
    pid: u32,
    started: u64,
}

impl Owner {
    /// This process.
    pub fn of_this() -> &'static Owner {
        static THIS: OnceLock<Owner> = OnceLock::new();
        THIS.get_or_init(|| {
            let pid = std::process::id();
            Owner { boot: boot(), pidns: pidns(), pid, started: started(pid).unwrap_or(0) }
        })
    }

    /// One as it was written down.
    pub fn parse(text: &str) -> Option<Owner> {
        let mut words = text.split(' ');
        let (boot, pidns) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Owner { boot, pidns, pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
    }

    /// Whether it runs no more. Of another pid namespace nothing is known.
    pub fn is_gone(&self) -> bool {
        if self.boot != boot() {
            return true;
        }
        self.pidns == pidns() && started(self.pid) != Some(self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} {}", self.boot, self.pidns, self.pid, self.started)
    }
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn pidns() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|path| path.display().to_string()).unwrap_or_default()
}

/// When a process was started (proc(5), field 22 of stat); none if there is none, or only its corpse.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_ended_is_gone_and_who_runs_is_not() {
        let this = Owner::of_this();
        assert!(Owner::parse(&this.to_string()).is_some_and(|read| read == *this && !read.is_gone()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (boot, pidns, pid) = (boot(), pidns(), child.id());
        let theirs = Owner { boot, pidns, pid, started: started(pid).unwrap_or(1) };
        child.wait().unwrap();
        assert!(theirs.is_gone());
        assert!(Owner::parse("").is_none() && Owner::parse("a b c 1").is_none());
        assert!(Owner::parse("an-other-boot pid:[1] 1 1").is_some_and(|read| read.is_gone()));
    }
}
