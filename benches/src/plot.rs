//! Bars with whiskers, as SVG.

use std::fmt::Write as _;

use crate::render::grouped;
use crate::results::Spread;

/// One bar.
pub struct Bar {
    /// Beside it.
    pub name: String,
    /// Its length, and the whisker's ends.
    pub spread: Spread,
    /// Whether it is ringport's.
    pub ours: bool,
    /// Whether it does not count.
    pub marked: bool,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 36.0;
const STEP: f64 = 26.0;

/// A horizontal bar for each, from zero.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let height = TOP + STEP * bars.len() as f64 + 10.0;
    let most = bars.iter().map(|bar| bar.spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"22\" font-weight=\"bold\">{}</text>",
        escaped(title)
    );
    for (at, bar) in bars.iter().enumerate() {
        let y = TOP + STEP * at as f64;
        let Spread { median, min, max } = bar.spread;
        let fill = if bar.ours { "#0b6e4f" } else { "#8a99a8" };
        let opacity = if bar.marked { 0.45 } else { 1.0 };
        let middle = y + 9.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\" fill=\"{fill}\" opacity=\"{opacity}\"/>\n\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#111\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}{}</text>",
            LEFT - 8.0,
            y + 14.0,
            escaped(&bar.name),
            median * scale,
            LEFT + min * scale,
            LEFT + max * scale,
            LEFT + max * scale + 6.0,
            y + 14.0,
            grouped(median),
            if bar.marked { " (load-bound)" } else { "" },
        );
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_holds_every_bar_and_no_stray_markup() {
        let bar = |name: &str, median| Bar {
            name: name.to_owned(),
            spread: Spread { median, min: median, max: median },
            ours: false,
            marked: false,
        };
        let text = bars("a < b", &[bar("x&y", 1.0), bar("z", 2000.0)]);
        assert!(text.contains("a &lt; b") && text.contains("x&amp;y") && text.contains(">2,000<"));
        assert_eq!(text.matches("<rect").count(), 3);
    }
}
