//! The few elements of a plot, as text.

use std::fmt::Write as _;

/// An SVG file in the making; lengths are pixels.
#[derive(Debug, Default)]
pub(crate) struct Svg(String);

impl Svg {
    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        let _ = writeln!(
            self.0,
            r#"<rect x="{x:.0}" y="{y:.0}" width="{width:.1}" height="{height:.0}" fill="{fill}"/>"#
        );
    }

    /// A path of lines.
    pub(crate) fn path(&mut self, data: &str, stroke: &str, width: f64) {
        if !data.is_empty() {
            let _ = writeln!(
                self.0,
                r#"<path d="{data}" stroke="{stroke}" stroke-width="{width}" fill="none"/>"#
            );
        }
    }

    /// A path of lines that are dashed.
    pub(crate) fn dashed(&mut self, data: &str, stroke: &str) {
        if !data.is_empty() {
            let _ = writeln!(
                self.0,
                r#"<path d="{data}" stroke="{stroke}" stroke-width="1.5" stroke-dasharray="4 2" fill="none"/>"#
            );
        }
    }

    /// `anchor`: start, middle or end.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.0,
            r#"<text x="{x:.0}" y="{y:.0}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        );
    }

    /// A disc with a letter.
    pub(crate) fn mark(&mut self, (x, y): (f64, f64), letter: char) {
        let _ = writeln!(
            self.0,
            r##"<circle cx="{x:.0}" cy="{y:.0}" r="6" fill="#fff" stroke="#333"/><text x="{x:.0}" y="{:.0}" text-anchor="middle" class="mark">{letter}</text>"##,
            y + 3.0
        );
    }

    /// The whole file.
    pub(crate) fn finish(self, width: f64, height: f64) -> String {
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="sans-serif">
<style>text{{font-size:11px;fill:#333}}.title{{font-size:15px}}.name{{font-size:12px;font-weight:bold}}.small{{font-size:10px;fill:#555}}.mark{{font-size:8px}}</style>
<rect width="100%" height="100%" fill="#fff"/>
{}</svg>
"##,
            self.0
        )
    }
}
