//! The daemons' options for traces.

use std::path::PathBuf;

use bonding_proto::trace::Level;

use super::TracePlan;

/// The smallest trace, bytes. Chosen: a smaller one holds seconds only.
const BYTES_MIN: u64 = 100_000;

/// The options of a trace.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceOptions {
    /// Record the bond's decisions (rates, losses, resends, link states) in this file; `bondctl
    /// trace` prints it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Size of the trace; when half of it is full, FILE becomes FILE.1 and a new FILE begins
    #[arg(long, value_name = "SIZE", default_value = "64MB", requires = "trace", value_parser = size)]
    trace_max: u64,
    /// Also record every packet that is sent
    #[arg(long, requires = "trace")]
    trace_packets: bool,
}

impl TraceOptions {
    /// The trace that the options ask for.
    pub(crate) fn plan(&self) -> Option<TracePlan> {
        let level = if self.trace_packets { Level::Packets } else { Level::Decisions };
        let file = self.trace.clone()?;
        Some(TracePlan { file, bytes_max: self.trace_max, level })
    }
}

/// A size in bytes: `64MB`.
fn size(text: &str) -> Result<u64, String> {
    let malformed = || "not a size; write it like 64MB (units: kB, MB, GB)".to_owned();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..) {
        Some("kB") => 1_000,
        Some("MB") => 1_000_000,
        Some("GB") => 1_000_000_000,
        Some(_) | None => return Err(malformed()),
    };
    let count: u64 = digits.trim_end().parse().map_err(|_| malformed())?;
    let bytes = count.checked_mul(unit).ok_or_else(malformed)?;
    if bytes < BYTES_MIN {
        return Err("too small; at least 100kB".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        trace: TraceOptions,
    }

    fn plan(line: &[&str]) -> Result<Option<TracePlan>, String> {
        let parsed = Line::try_parse_from([&["daemon"], line].concat());
        parsed.map(|line| line.trace.plan()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_recorded_unless_a_file_is_named() {
        assert_eq!(plan(&[]), Ok(None));
        let plain = TracePlan { file: "a".into(), bytes_max: 64_000_000, level: Level::Decisions };
        assert_eq!(plan(&["--trace", "a"]), Ok(Some(plain.clone())));
        let all = TracePlan { bytes_max: 100_000, level: Level::Packets, ..plain };
        assert_eq!(plan(&["--trace=a", "--trace-max=100kB", "--trace-packets"]), Ok(Some(all)));
        assert!(plan(&["--trace-packets"]).unwrap_err().contains("--trace <FILE>"));
        for (size, why) in [("64", "write it like 64MB"), ("99kB", "at least"), ("-1MB", "not a size")] {
            let said = plan(&["--trace=a", &format!("--trace-max={size}")]).unwrap_err();
            assert!(said.contains(why), "{size}: {said}");
        }
    }
}
