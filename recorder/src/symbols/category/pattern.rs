//! What names and paths are compared with.

use std::{borrow::Cow, sync::Arc};

/// Of what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The name of a function's crate.
    Crate,
    /// A function's full name.
    Function,
    /// The file that a function is written in.
    Path,
}

impl Subject {
    const ALL: [Subject; 3] = [Subject::Crate, Subject::Function, Subject::Path];

    pub fn name(self) -> &'static str {
        match self {
            Subject::Crate => "crate",
            Subject::Function => "function",
            Subject::Path => "path",
        }
    }
}

/// The longest pattern: SQL's GLOB takes no more than 50,000.
const MAX_BYTES: usize = 1000;

/// `SUBJECT:TEXT`, where `*` in the text stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub category: Arc<str>,
    pub subject: Subject,
    text: Box<str>,
}

/// A crate's name as it is compared.
pub fn crate_name(name: &str) -> Cow<'_, str> {
    if name.contains('-') { name.replace('-', "_").into() } else { name.into() }
}

impl Pattern {
    /// Reads one, or says what is wrong with it.
    pub fn read(word: &str, category: Arc<str>) -> Result<Pattern, String> {
        let told = word.split_once(':').filter(|(_, text)| !text.is_empty());
        let subject = |name: &str| Subject::ALL.into_iter().find(|subject| subject.name() == name);
        let Some((subject, text)) = told.and_then(|(name, text)| Some((subject(name)?, text))) else {
            return Err(format!("`{word}` is no pattern: those are crate:…, function:… and path:…"));
        };
        if text.len() > MAX_BYTES || text.contains(char::is_control) {
            return Err(format!("a pattern has at most {MAX_BYTES} bytes, all of which can be printed"));
        }
        let text = if subject == Subject::Crate { crate_name(text) } else { text.into() };
        Ok(Pattern { category, subject, text: text.into() })
    }

    /// Whether it stands for all of this. Takes at most as many steps as both are long, multiplied.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.text.as_bytes(), name.as_bytes());
        let (mut at, mut of) = (0, 0);
        // Behind the last `*`, and what of the name it stands for until now.
        let mut star = None;
        while of < name.len() {
            match (pattern.get(at), star) {
                (Some(b'*'), _) => {
                    at += 1;
                    star = Some((at, of));
                }
                (Some(byte), _) if *byte == name[of] => {
                    at += 1;
                    of += 1;
                }
                (_, Some((behind, until))) => {
                    at = behind;
                    of = until + 1;
                    star = Some((behind, of));
                }
                (_, None) => return false,
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }

    /// The same for SQL's GLOB, in which more letters stand for others.
    pub fn glob(&self) -> String {
        let mut glob = String::with_capacity(self.text.len());
        for letter in self.text.chars() {
            match letter {
                '[' | '?' => glob.extend(['[', letter, ']']),
                letter => glob.push(letter),
            }
        }
        glob
    }
}
