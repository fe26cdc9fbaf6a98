//! How values are written: a value and a newline, lines of `key=value`, JSON with a newline at its end.

use crate::containerd::Labels;
use crate::error::{Kind, Result};
use serde_json::Value;
use std::fmt::{Display, Write};
use std::time::SystemTime;

/// What a row gives: bytes, or nothing where the file does not apply.
pub type Text = Result<Option<Vec<u8>>>;

/// A value and a newline.
pub fn line(value: impl Display) -> Text {
    Ok(Some(format!("{value}\n").into_bytes()))
}

/// The same, absent where the value is empty.
pub fn line_if(value: &str) -> Text {
    if value.is_empty() { Ok(None) } else { line(value) }
}

/// A time in RFC 3339 with nanoseconds, in UTC, as containerd writes it.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

/// The line of a time, absent where there is none.
pub fn time(time: Option<SystemTime>) -> Text {
    time.map_or(Ok(None), |time| line(rfc3339(time)))
}

/// Nanoseconds since 1970: tells an object from its successor of the same name.
pub fn nanos(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// JSON, indented, with a newline at its end.
pub fn json(value: &Value) -> Text {
    Ok(Some(format!("{value:#}\n").into_bytes()))
}

/// Labels, `key=value` a line. A newline in a value is written as `\n`, a backslash as `\\`: a line is a label.
pub fn labels(labels: &Labels) -> Text {
    let mut text = String::new();
    for (key, value) in labels.iter() {
        let value = value.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    Ok(Some(text.into_bytes()))
}

/// Labels as a list, for xattrs.
pub fn pairs(labels: &Labels) -> Vec<(String, String)> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What is there and can be used. A blob that is not here, is damaged or is not what it says makes what is derived
/// from it absent; only a failure to ask is a failure.
pub fn usable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), Kind::WouldWait | Kind::Away | Kind::Deadline | Kind::Interrupted) => Err(e),
        Err(_) => Ok(None),
    }
}

/// A field of a table: what would end it or its line is percent-encoded as in names.
pub fn field(text: &str) -> String {
    if !text.contains(|c: char| c.is_ascii_control() || c == '%') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || c == '%' {
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_line_whatever_is_in_it() {
        let text = labels(&[("b", "1\n2\\"), ("a", "")].into_iter().collect()).unwrap().unwrap();
        assert_eq!(text, b"a=\nb=1\\n2\\\\\n");
    }

    #[test]
    fn times_are_written_as_containerd_writes_them() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 120_000_000);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.12Z");
    }
}
