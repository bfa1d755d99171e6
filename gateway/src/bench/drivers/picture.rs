//! The comparison as a table with bars, and as an SVG.

use std::fmt::Write;

use super::super::report::{bar, time};
use super::{Figures, Measured, Served, verdict};

pub(super) fn text(measured: &[Measured], cores: usize, interrupted: bool) -> String {
    let width = measured.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for work in Served::ALL {
        let head = ["requests/s", "CPU ns/req", "syscalls/req", "busy", "load", "p50", "p99"];
        let [rate, cpu, calls, busy, load, p50, p99] = head;
        line(
            &mut out,
            format_args!(
                "{:width$} {rate:>11} {cpu:>11} {calls:>13} {busy:>6} {load:>6} {p50:>10} {p99:>10}",
                work.name()
            ),
        );
        let rows = measured.iter().filter(|one| one.work == work);
        for one in rows.clone() {
            match &one.figures {
                Ok(figures) => line(&mut out, format_args!("{:width$} {}", one.name, columns(figures))),
                Err(why) => line(&mut out, format_args!("{:width$} no figures: {why}", one.name)),
            }
        }
        let most = most(measured, work);
        line(&mut out, format_args!("\nCPU ns a request, less is better"));
        for (name, figures) in rows.filter_map(|one| Some((&one.name, one.figures.as_ref().ok()?))) {
            line(&mut out, format_args!("{name:width$} {} {}", bar(figures.cpu_nanos, most), cost(figures)));
        }
        out.push('\n');
    }
    for work in Served::ALL {
        line(&mut out, format_args!("{}", verdict(measured, work).1));
    }
    if cores < 2 {
        line(&mut out, format_args!("note: there is one core, so that the load runs on the server's"));
    }
    if interrupted {
        line(&mut out, format_args!("note: ended by a signal before all rounds were done"));
    }
    out
}

fn columns(figures: &Figures) -> String {
    format!(
        "{:>11.0} {:>11.0} {:>13.3} {:>4.0} % {:>4.0} % {:>10} {:>10}{}",
        figures.rate,
        figures.cpu_nanos,
        figures.syscalls,
        figures.busy * 100.0,
        figures.load_busy * 100.0,
        time(figures.latency.value_at_quantile(0.5)),
        time(figures.latency.value_at_quantile(0.99)),
        if figures.failed > 0 { format!("  {} failed", figures.failed) } else { String::new() },
    )
}

/// The cost with the least and greatest of the rounds.
fn cost(figures: &Figures) -> String {
    let least = figures.costs.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = figures.costs.iter().copied().fold(0.0, f64::max);
    format!("{:.0} ({least:.0} to {greatest:.0})", figures.cpu_nanos)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes all");
}

/// The greatest cost at this work, which the longest bar stands for.
fn most(measured: &[Measured], work: Served) -> f64 {
    let costs = measured.iter().filter(|one| one.work == work).filter_map(|one| one.figures.as_ref().ok());
    costs.map(|figures| figures.cpu_nanos).fold(0.0, f64::max)
}

/// Bars of the processor's time for each request. The names in it are ours: nothing needs escaping.
pub(super) fn svg(measured: &[Measured]) -> String {
    let mut body = String::new();
    let mut y = 30;
    for work in Served::ALL {
        let title = format!("{}: CPU ns a request, less is better", work.name());
        line(&mut body, format_args!("<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{title}</text>"));
        let most = most(measured, work);
        for one in measured.iter().filter(|one| one.work == work) {
            y += ROW;
            line(&mut body, format_args!("<text x=\"10\" y=\"{y}\">{}</text>", one.name));
            match &one.figures {
                Ok(figures) => put_bar(&mut body, y, figures, most),
                Err(_) => line(&mut body, format_args!("<text x=\"{LEFT}\" y=\"{y}\">no figures</text>")),
            }
        }
        y += ROW * 2;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn put_bar(body: &mut String, y: u32, figures: &Figures, most: f64) {
    let width = if most > 0.0 { figures.cpu_nanos / most * WIDEST } else { 0.0 };
    let top = y - 13;
    line(
        body,
        format_args!("<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\" fill=\"#4477aa\"/>"),
    );
    let label = f64::from(LEFT) + width + 6.0;
    let text = format!("{} ns, {:.0} requests/s", cost(figures), figures.rate);
    line(body, format_args!("<text x=\"{label:.1}\" y=\"{y}\">{text}</text>"));
}

const ROW: u32 = 24;
const LEFT: u32 = 180;
const WIDEST: f64 = 460.0;
