//! Text for a terminal: without what a terminal would obey, and no wider than it is.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The text without control characters and without marks that change the direction of what follows. Names, messages and identifiers come
/// from strangers, and a terminal obeys what is in them.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|letter| match letter {
            '\n' | '\t' => Some(' '),
            _ => (!is_unsafe(letter)).then_some(letter),
        })
        .collect()
}

/// Whether a terminal might do something else than show the character.
pub(crate) fn is_unsafe(letter: char) -> bool {
    let redirects = matches!(letter,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    letter.is_control() || redirects
}

/// How many columns the text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The line, cut to so many columns. A line that was cut ends with a sign for it.
pub(crate) fn fit(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let mut cut = String::new();
    // One column is for the sign.
    let mut room = columns.saturating_sub(1);
    for letter in line.chars() {
        let Some(rest) = room.checked_sub(letter.width().unwrap_or(0)) else {
            break;
        };
        room = rest;
        cut.push(letter);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gives_a_terminal_no_orders() {
        for (text, cleaned) in [
            ("C1", "C1"),
            ("\u{1b}]0;title\u{7}C1", "]0;titleC1"),
            ("\u{9b}2JC1\u{7f}", "2JC1"),
            ("a\nb\tc\rd", "a b cd"),
            ("a\u{202e}b\u{2066}c\u{200b}d", "abcd"),
            ("Fräser-7 漢", "Fräser-7 漢"),
        ] {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_cut_by_columns() {
        for (line, columns, cut) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("漢漢漢", 5, "漢漢…"),
            ("漢漢漢", 4, "漢…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(fit(line, columns), cut);
            assert!(width(&fit(line, columns)) <= columns, "{line} {columns}");
        }
    }
}
