//! Text that others wrote, on our user's terminal.

use std::fmt::{self, Write};

/// `text` on one line, with whatever a terminal would act on (control and formatting characters) written as an escape.
pub fn printable(text: &str) -> impl fmt::Display {
    Printable(text)
}

struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\'' | '"' | '\\' => out.write_char(character),
            _ => write!(out, "{}", character.escape_debug()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_steer_the_terminal() {
        for (text, printed) in [
            ("tokio-rt-worker", "tokio-rt-worker"),
            ("it's \"größer\" \\o/ 日本", "it's \"größer\" \\o/ 日本"),
            ("two\nlines", "two\\nlines"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("\u{202e}drawkcab", "\\u{202e}drawkcab"),
        ] {
            assert_eq!(printable(text).to_string(), printed);
        }
    }
}
