//! A page on the terminal that is drawn again and again. What was there before comes back at the end.

use std::io::{self, IsTerminal as _, Write as _};

use terminal_size::{Height, Width, terminal_size};

use crate::text::fit;

/// To the other page of the terminal, without a cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
/// With the cursor, back to the page with what was there before.
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of a line.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears all below.
const CLEAR_BELOW: &str = "\x1b[J";

/// Where a terminal does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// The terminal, while a page is drawn on it. It is as before when this is dropped.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// Begins, if standard output is a terminal.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let screen = Self(());
        put(OPEN)?;
        Ok(Some(screen))
    }

    /// Draws lines that are clean, as many as there is room for.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub(crate) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = match terminal_size() {
            Some((Width(columns), Height(rows))) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
            _ => USUAL,
        };
        put(&page(lines, columns, rows))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        drop(put(CLOSE));
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What draws the lines on a terminal of this size. It writes over what is there, so nothing flickers.
fn page(lines: &[String], columns: usize, rows: usize) -> String {
    let mut shown: Vec<String> = lines.iter().take(rows).map(|line| fit(line, columns)).collect();
    if lines.len() > rows
        && let Some(last) = shown.last_mut()
    {
        *last = fit(&format!("… {} more lines", lines.len() - rows + 1), columns);
    }
    let body: Vec<String> = shown.iter().map(|line| format!("{line}{CLEAR_LINE}")).collect();
    // No line end behind the last line: the terminal would scroll.
    format!("{HOME}{}{CLEAR_BELOW}", body.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(lines: &[&str], columns: usize, rows: usize) -> Vec<String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let page = page(&lines, columns, rows);
        let body = page
            .strip_prefix(HOME)
            .and_then(|page| page.strip_suffix(CLEAR_BELOW))
            .unwrap();
        body.split("\r\n")
            .map(|line| line.strip_suffix(CLEAR_LINE).unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_page_is_no_larger_than_its_terminal() {
        assert_eq!(drawn(&["abc", "defgh"], 80, 24), ["abc", "defgh"]);
        assert_eq!(drawn(&["abc", "defgh"], 4, 24), ["abc", "def…"]);
        assert_eq!(drawn(&["a", "b", "c", "d"], 80, 3), ["a", "b", "… 2 more lines"]);
        assert_eq!(drawn(&["a", "b", "c"], 80, 3), ["a", "b", "c"]);
    }
}
