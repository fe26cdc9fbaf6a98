//! Signals, as people write them.

use crate::error::Result;
use crate::fail;

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The real-time signals as the C library of most images counts them.
const REAL_TIME: std::ops::RangeInclusive<u32> = 34..=64;

/// `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`; 0 only asks whether the process is there.
pub fn parse(word: &str) -> Result<u32> {
    if let Ok(number) = word.parse::<u32>() {
        return if number <= *REAL_TIME.end() { Ok(number) } else { fail!(Invalid, "{word}: there is no such signal") };
    }
    let upper = word.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(number.unsigned_abs());
    }
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u32>().ok(),
    };
    let from_min = name.strip_prefix("RTMIN").and_then(|rest| Some(REAL_TIME.start() + offset(rest, '+')?));
    let from_max = || REAL_TIME.end().checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?);
    match from_min.or_else(from_max).filter(|number| REAL_TIME.contains(number)) {
        Some(number) => Ok(number),
        None => fail!(Invalid, "{word}: there is no such signal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_spellings() {
        for (word, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(parse(word).unwrap(), number, "{word}");
        }
        for word in ["", "NOPE", "65", "-1", "RTMIN+40", "RTMAX-99"] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
