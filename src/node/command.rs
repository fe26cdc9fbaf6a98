//! A command: a line of words, as a shell would split it.
//!
//! Shell-style quoting and no other syntax: no variables, no globs, no pipes (DESIGN 4). Each word knows where it
//! began, so that a refusal can point at it.

use crate::error::{Error, Kind, Result};
use crate::fail;

/// The most bytes that one write may hold.
pub const LONGEST: usize = 64 << 10;

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    /// The byte of the line at which it begins.
    pub at: usize,
    /// The byte behind it.
    pub end: usize,
}

/// A command.
#[derive(Debug, Clone)]
pub struct Command {
    /// The line as it was written.
    pub line: String,
    /// Its words; those of the verb are taken off before the verb's function sees it.
    pub words: Vec<Word>,
    /// Its last word was a lone `&`: whoever wrote it does not wait for its end.
    pub background: bool,
    /// Who wrote it.
    pub uid: u32,
}

impl Command {
    /// Splits a line into words; a line without any is none. A line that is not UTF-8, holds a NUL or leaves a quote
    /// open is refused.
    pub fn read(line: &[u8], uid: u32) -> Result<Option<Command>> {
        let Ok(line) = std::str::from_utf8(line) else { return fail!(Invalid, "a command is UTF-8") };
        if let Some(at) = line.find('\0') {
            return Err(Error::new(Kind::Invalid, "a command has no NUL in it").at(line, at));
        }
        let (mut words, background) = split(line)?;
        if background {
            words.pop();
        }
        let command = Command { line: line.to_owned(), words, background, uid };
        Ok((!command.words.is_empty()).then_some(command))
    }

    /// The words after the verb, as the arguments that `A` declares: named flags and their values, then the rest.
    /// What is not declared is refused by name.
    pub fn parse<A: clap::Parser>(&self) -> Result<A> {
        let words = self.words.iter().map(|word| &word.text);
        A::try_parse_from(words).map_err(|e| self.refusal(&e))
    }

    /// The texts of the words after the verb.
    pub fn texts(&self) -> Vec<&str> {
        self.words.iter().map(|word| word.text.as_str()).collect()
    }

    /// Fails unless there are no words after the verb.
    pub fn bare(&self) -> Result<()> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => {
                let error = Error::new(Kind::Invalid, format!("{}: this command takes no argument", word.text));
                Err(error.at(&self.line, word.at))
            }
        }
    }

    /// The one word after the verb, which is called `what`.
    pub fn one(&self, what: &str) -> Result<&str> {
        match self.words.as_slice() {
            [word] => Ok(&word.text),
            [] => Err(Error::new(Kind::Invalid, format!("{what} must be given")).at(&self.line, self.line.len())),
            [_, more, ..] => {
                let error = Error::new(Kind::Invalid, format!("{}: one {what} is enough", more.text));
                Err(error.at(&self.line, more.at))
            }
        }
    }

    /// Makes what follows these flags unreadable in [`Command::line`], which journals and jobs show: the words keep it.
    pub fn hide(&mut self, flags: &[&str]) {
        let mut hidden = Vec::new();
        for (n, word) in self.words.iter().enumerate() {
            if flags.contains(&word.text.as_str()) {
                hidden.extend(self.words.get(n + 1).map(|value| (value.at, value.end)));
            } else if flags.iter().any(|flag| glued(flag, &word.text)) {
                hidden.push((word.at, word.end));
            }
        }
        for (at, end) in hidden.into_iter().rev() {
            // As long as it was, so that what points into the line still points at the right word.
            let stars = "*".repeat(self.line[at..end].len());
            self.line.replace_range(at..end, &stars);
        }
    }

    /// What clap found, as one sentence that points at the word at fault.
    fn refusal(&self, error: &clap::Error) -> Error {
        use clap::error::{ContextKind, ContextValue};
        let text = error.to_string();
        // The first paragraph is the sentence; usage and hints to `--help` come after an empty line.
        let first = text.split("\n\n").next().unwrap_or(&text);
        let sentence = first.strip_prefix("error: ").unwrap_or(first);
        let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
        let value = [ContextKind::InvalidValue, ContextKind::InvalidArg].into_iter().find_map(|kind| {
            let Some(ContextValue::String(value)) = error.get(kind) else { return None };
            let name = value.split([' ', '=']).next().unwrap_or(value);
            self.words.iter().find(|word| !name.is_empty() && word.text.starts_with(name))
        });
        let at = value.map_or(self.line.len(), |word| word.at);
        Error::new(Kind::Invalid, sentence).at(&self.line, at)
    }
}

/// Whether a word is a flag with its value: `--user=me`, `-u=me`, `-ume`.
fn glued(flag: &str, word: &str) -> bool {
    let is_short = flag.len() == 2;
    word.strip_prefix(flag).is_some_and(|value| value.starts_with('=') || (is_short && !value.is_empty()))
}

/// The words of a line, and whether the last is an unquoted `&`.
fn split(line: &str) -> Result<(Vec<Word>, bool)> {
    let mut words = Vec::new();
    let mut letters = line.char_indices().peekable();
    let mut bare = false;
    while let Some(&(at, letter)) = letters.peek() {
        if letter.is_ascii_whitespace() {
            letters.next();
            continue;
        }
        let mut text = String::new();
        bare = true;
        while let Some(&(here, letter)) = letters.peek() {
            if letter.is_ascii_whitespace() {
                break;
            }
            letters.next();
            match letter {
                '\'' | '"' => {
                    bare = false;
                    quoted(letter, &mut letters, &mut text)
                        .ok_or_else(|| Error::new(Kind::Invalid, "this quote is not closed").at(line, here))?;
                }
                '\\' => match letters.next() {
                    Some((_, next)) => {
                        bare = false;
                        text.push(next);
                    }
                    None => return Err(Error::new(Kind::Invalid, "nothing follows this backslash").at(line, here)),
                },
                letter => text.push(letter),
            }
        }
        let end = letters.peek().map_or(line.len(), |(end, _)| *end);
        words.push(Word { text, at, end });
    }
    let background = bare && words.last().is_some_and(|word| word.text == "&");
    Ok((words, background))
}

/// Appends what is between two quotes; `None` if the second is missing. Between double ones a backslash takes the
/// meaning from `"`, `\`, `$` and a backquote, as in a shell.
fn quoted(quote: char, letters: &mut impl Iterator<Item = (usize, char)>, text: &mut String) -> Option<()> {
    loop {
        match letters.next()?.1 {
            letter if letter == quote => return Some(()),
            '\\' if quote == '"' => match letters.next()?.1 {
                letter @ ('"' | '\\' | '$' | '`') => text.push(letter),
                letter => text.extend(['\\', letter]),
            },
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        let command = Command::read(line.as_bytes(), 0).unwrap();
        command.map_or(Vec::new(), |command| command.words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(words("kill  -s TERM\t9"), ["kill", "-s", "TERM", "9"]);
        assert_eq!(
            words(r#"run a 'b c' "d \"e\" \n" f\ g '' h'i'"#),
            ["run", "a", "b c", "d \"e\" \\n", "f g", "", "hi"]
        );
        assert_eq!(words("a $HOME * ~ `x` | b"), ["a", "$HOME", "*", "~", "`x`", "|", "b"]);
        assert!(words(" \t ").is_empty() && words("").is_empty());
    }

    #[test]
    fn a_lone_ampersand_at_the_end_leaves_the_command_behind() {
        let read = |line: &str| Command::read(line.as_bytes(), 0).unwrap().unwrap();
        assert!(read("pull x &").background && read("pull x &").words.len() == 2);
        assert!(!read("echo '&'").background && !read("echo \\&").background && !read("a & b").background);
        assert!(Command::read(b"&", 0).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_pointed_at() {
        let error = |line: &[u8]| Command::read(line, 0).unwrap_err();
        assert_eq!(error(b"a \"b").place().unwrap(), "a \"b\n  ^");
        assert_eq!(error(b"a b\\").place().unwrap(), "a b\\\n   ^");
        assert_eq!(error(b"a\0b").kind(), Kind::Invalid);
        assert_eq!(error(b"\xff").kind(), Kind::Invalid);
    }

    #[derive(Debug, clap::Parser)]
    #[command(no_binary_name = true)]
    struct Kill {
        #[arg(long, short)]
        signal: Option<String>,
        #[arg(long, short)]
        all: bool,
        /// A list alone that may begin with a hyphen would take strange flags for its own.
        id: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    }

    #[test]
    fn flags_are_declared_and_a_strange_one_is_named() {
        let read = |line: &str| Command::read(line.as_bytes(), 0).unwrap().unwrap();
        let kill: Kill = read("--signal=TERM -a x -y").parse().unwrap();
        assert_eq!((kill.signal.as_deref(), kill.all, kill.rest.len()), (Some("TERM"), true, 1));
        let error = read("-a --sgnal 9").parse::<Kill>().unwrap_err();
        assert!(error.to_string().contains("--sgnal"), "{error}");
        assert_eq!(error.place().unwrap(), "-a --sgnal 9\n   ^");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut command = Command::read(b"pull --user me:secret -u=me:secret x", 0).unwrap().unwrap();
        command.hide(&["--user", "-u"]);
        assert_eq!(command.line, "pull --user ********* ************ x");
        assert_eq!(command.words[2].text, "me:secret");
    }

    proptest! {
        #[test]
        fn a_quoted_word_comes_out_as_it_went_in(text in "[^\0']*") {
            prop_assert_eq!(words(&format!("'{text}'")), [text]);
        }

        #[test]
        fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::read(&line, 0);
        }
    }
}
