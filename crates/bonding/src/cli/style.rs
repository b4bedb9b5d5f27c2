//! Colours and sizes of a terminal.

use std::io::IsTerminal as _;

/// How text may look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

/// The few colours used, as SGR parameters (ECMA-48 §8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Heavier.
    Bold,
    /// Fainter.
    Dim,
    /// Wrong.
    Red,
    /// Good.
    Green,
    /// Doubtful.
    Yellow,
    /// Of note.
    Cyan,
}

impl Style {
    /// Colours only on a terminal, and not where `NO_COLOR` is set (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        Self { colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Without colours.
    pub const PLAIN: Self = Self { colours: false };

    /// With colours.
    pub const COLOURED: Self = Self { colours: true };

    /// `text` in a colour, where colours are allowed.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
