//! Draws a trace as SVG; `cargo xtask trace` runs it. `docs/trace.md` describes traces.
//!
//! - `model`: the records of one session, in bins of time.
//! - `draw`: the panels.
//! - `svg`: the elements.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod draw;
mod model;
mod svg;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use bonding_proto::trace::format::{Decoder, Entry};

const USAGE: &str = "usage: trace_svg FILE [-o OUT.svg] [--session N]";

fn main() -> ExitCode {
    match run() {
        Ok(out) => {
            println!("{}", out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<PathBuf, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut file, mut out, mut session) = (None, None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-o" => out = Some(anchored(&arguments.next().ok_or(USAGE)?)),
            "--session" => session = Some(arguments.next().ok_or(USAGE)?.parse::<u16>().map_err(|_| USAGE)?),
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}\n{USAGE}").into());
            }
            name if file.is_none() => file = Some(anchored(name)),
            _ => return Err(USAGE.into()),
        }
    }
    let file = file.ok_or(USAGE)?;
    let out = out.unwrap_or_else(|| file.with_extension("svg"));
    if out == file {
        return Err(format!("{} is the trace itself: name another file with -o", file.display()).into());
    }
    let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        match decoder.poll() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => break,
            Err(error) => return Err(format!("{}: {error}", file.display()).into()),
        }
    }
    let side = decoder.header().ok_or("the file ends within its header")?.side;
    if let Err(error) = decoder.finish() {
        eprintln!("{}: {error}; what comes before is drawn", file.display());
    }
    let model = model::Model::new(&entries, session).ok_or("the trace holds no records (of this session)")?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let text =
        draw::draw(&model, &format!("{name}: decisions of the {}, session with {}", side.name(), model.peer));
    std::fs::write(&out, text).map_err(|error| format!("{}: {error}", out.display()))?;
    Ok(out)
}

/// Relative files are meant from where the caller of `cargo xtask` stands.
fn anchored(file: &str) -> PathBuf {
    std::env::var_os("TRACE_WORKING_DIRECTORY").map_or_else(PathBuf::new, PathBuf::from).join(file)
}
