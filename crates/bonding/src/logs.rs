//! Logs on standard error: for people on a terminal, for the journal under systemd, plain text
//! otherwise.
//!
//! - On a terminal: time, level in colour, message.
//! - With `JOURNAL_STREAM` set and no terminal: no time (the journal has its own) and no colour;
//!   where standard error really is the journal, each line carries its syslog level (sd-daemon(3)).
//! - Otherwise: time, level, message.
//!
//! `RUST_LOG` chooses levels: `debug`, or per module `info,bonding::control=trace`. Reports
//! ([`report`]) are written without time and level, so that their shape is the documented one.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The target of reports: the formatter recognises it, and `bonding::report=off` switches them off.
const REPORT_TARGET: &str = "bonding::report";

/// `RUST_LOG` is not understood.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG=\"{value}\" is not understood; write a level such as \"debug\", or \"info,bonding=trace\"")]
pub struct FilterError {
    value: String,
}

/// Sends all logs of this process to standard error. A second call changes nothing.
///
/// # Errors
/// When `RUST_LOG` is not understood; then no logs are set up.
pub fn init() -> Result<(), FilterError> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let terminal = std::io::stderr().is_terminal();
    let journal = std::env::var("JOURNAL_STREAM").ok().filter(|_| !terminal);
    let style = match journal {
        _ if terminal => Style::Terminal,
        Some(stream) => Style::Journal { levels: is_stderr(&stream) },
        None => Style::Plain,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(style == Style::Terminal && std::env::var_os("NO_COLOR").is_none())
        .event_format(Format { style })
        .with_writer(std::io::stderr);
    // An error means that a subscriber is there already.
    let _ = tracing_subscriber::registry().with(layer).with(filter).try_init();
    Ok(())
}

/// Logs a report at INFO as it is.
pub fn report(text: &str) {
    tracing::info!(target: REPORT_TARGET, "{text}");
}

fn filter(value: Option<&str>) -> Result<Targets, FilterError> {
    let value = value.unwrap_or("").trim();
    if value.is_empty() {
        return Ok(Targets::new().with_default(Level::INFO));
    }
    value.parse().map_err(|_| FilterError { value: value.to_owned() })
}

/// Whether standard error is the stream of the journal: systemd.exec(5) gives its device and inode.
fn is_stderr(journal_stream: &str) -> bool {
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    journal_stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Terminal,
    Plain,
    /// With syslog levels, or without where the journal would not see them.
    Journal {
        levels: bool,
    },
}

struct Format {
    style: Style,
}

/// An event's message and its other fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.others, " {}={value:?}", field.name())
        };
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(span) = context.lookup_current()
            && let Some(formatted) = span.extensions().get::<FormattedFields<N>>()
            && !formatted.fields.is_empty()
        {
            let _ = write!(fields.others, " {}", formatted.fields);
        }
        let meta = event.metadata();
        let mut prefix = String::new();
        if meta.target() != REPORT_TARGET {
            prefix = self.prefix(*meta.level(), writer.has_ansi_escapes());
        }
        let text = format!("{prefix}{}{}", fields.message, fields.others);
        for line in text.split('\n') {
            if self.style == (Style::Journal { levels: true }) {
                write!(writer, "<{}>", syslog_level(*meta.level()))?;
            }
            writeln!(writer, "{line}")?;
        }
        Ok(())
    }
}

impl Format {
    fn prefix(&self, level: Level, colours: bool) -> String {
        let mut prefix = String::new();
        if !matches!(self.style, Style::Journal { .. }) {
            let _ = SystemTime.format_time(&mut Writer::new(&mut prefix));
            // Microseconds are of no use to a reader.
            if let Some(dot) = prefix.find('.') {
                prefix.truncate(dot);
                prefix.push('Z');
            }
            prefix.push(' ');
        }
        let _ = if colours {
            write!(prefix, "\x1b[{}m{level:>5}\x1b[0m ", colour(level))
        } else {
            write!(prefix, "{level:>5} ")
        };
        prefix
    }
}

/// SGR parameters: red, yellow, green, blue, dim.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 2,
    }
}

/// syslog(3).
fn syslog_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(style: Style, rust_log: Option<&str>, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(style == Style::Terminal)
            .event_format(Format { style })
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer).with(filter(rust_log).unwrap());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_journal_gets_neither_time_nor_colour() {
        let log = || tracing::warn!(link = "adsl", "down");
        let quoted = "link=\"adsl\"";
        assert_eq!(written(Style::Journal { levels: false }, None, log), format!(" WARN down {quoted}\n"));
        assert_eq!(written(Style::Journal { levels: true }, None, log), format!("<4> WARN down {quoted}\n"));
    }

    #[test]
    fn a_terminal_gets_colour_and_others_get_time() {
        let log = || tracing::info!("up");
        let terminal = written(Style::Terminal, None, log);
        assert!(terminal.ends_with("Z \x1b[32m INFO\x1b[0m up\n"), "{terminal:?}");
        let plain = written(Style::Plain, None, log);
        let (time, rest) = plain.split_at("2000-01-01T00:00:00Z".len());
        assert!(time.ends_with('Z') && time.contains('T'), "{plain:?}");
        assert_eq!(rest, "  INFO up\n");
    }

    #[test]
    fn reports_keep_their_shape() {
        let log = || report("=== Link Metrics ===\n  Link0 (a) - RTT: -");
        assert_eq!(written(Style::Plain, None, log), "=== Link Metrics ===\n  Link0 (a) - RTT: -\n");
        assert_eq!(
            written(Style::Journal { levels: true }, None, log),
            "<6>=== Link Metrics ===\n<6>  Link0 (a) - RTT: -\n"
        );
        assert_eq!(written(Style::Plain, Some("warn"), log), "");
        assert_eq!(written(Style::Plain, Some("info,bonding::report=off"), log), "");
    }

    #[test]
    fn levels_come_from_the_environment() {
        let log = || {
            tracing::debug!("d");
            tracing::error!("e");
        };
        let journal = Style::Journal { levels: false };
        assert_eq!(written(journal, None, log), "ERROR e\n");
        assert_eq!(written(journal, Some("debug"), log), "DEBUG d\nERROR e\n");
        assert!(filter(Some("bonding=loud")).unwrap_err().to_string().contains("RUST_LOG=\"bonding=loud\""));
    }

    #[test]
    fn lines_of_one_message_cannot_pose_as_others_in_the_journal() {
        let log = || tracing::info!("a\nb");
        assert_eq!(written(Style::Journal { levels: true }, None, log), "<6> INFO a\n<6>b\n");
    }
}
