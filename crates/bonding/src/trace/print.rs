//! `bondctl trace FILE`: a trace as lines of JSON.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bonding_proto::trace::Record;
use bonding_proto::trace::format::{Decoder, Entry};

use super::line::{Line, Lines};

/// How often a file that is followed is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Examples for `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  bonding-client --trace /tmp/bond.trace                       (as root) record
  bondctl trace /tmp/bond.trace                                everything, one JSON object a line
  bondctl trace /tmp/bond.trace --name recovery: --link dsl    rates and losses of one link
  bondctl trace /tmp/bond.trace --follow --name bond:link      link states as they change
  bondctl trace /tmp/bond.trace | jq -c 'select(.name == \"bond:gap_closed\") | .data'";

/// The file to print, and which of its lines.
#[derive(Debug, clap::Args)]
pub struct TraceArguments {
    /// A file that `--trace` of bonding-client or bonding-server wrote
    file: PathBuf,
    /// Only records about this link, by its name or number; may be repeated
    #[arg(long = "link", value_name = "LINK")]
    links: Vec<String>,
    /// Only events whose name begins so, such as recovery: or bond:gap_closed; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Go on with new records, until interrupted
    #[arg(long)]
    follow: bool,
}

impl TraceArguments {
    /// Whether a line with this name is wanted.
    fn wants_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|one| name.starts_with(one.as_str()))
    }

    /// Whether a record about these links is wanted.
    fn wants_link(&self, record: &Record, lines: &Lines) -> bool {
        let Some(link) = record.event.link() else { return self.links.is_empty() };
        let (name, number) = (lines.link_name(record.session, link), link.0.to_string());
        self.links.is_empty() || self.links.iter().any(|one| *one == name || *one == number)
    }
}

/// Prints a trace to `out`. An output that is closed ends it: that is no error.
///
/// # Errors
/// The file cannot be read, or is damaged: the records before the damage are printed.
pub(crate) fn run(arguments: &TraceArguments, out: impl Write) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out);
    let result = print(arguments, &mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Err(error) if is_closed(&error) => Ok(()),
        other => other,
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn print(arguments: &TraceArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let path = &arguments.file;
    let mut file = open(path)?;
    let (mut decoder, mut lines) = (Decoder::default(), Lines::default());
    let mut has_header = false;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).with_context(|| format!("{} cannot be read", path.display()))?;
        if count > 0 {
            decoder.push(piece.get(..count).unwrap_or_default());
            print_entries(arguments, &mut decoder, &mut lines, &mut has_header, out)?;
            continue;
        }
        if !arguments.follow {
            return decoder.finish().with_context(|| path.display().to_string());
        }
        out.flush()?;
        std::thread::sleep(FOLLOW_INTERVAL);
        if is_replaced(&file, path) {
            // Records written between the last look and the change are in the old file.
            let mut rest = Vec::new();
            file.read_to_end(&mut rest)?;
            decoder.push(&rest);
            print_entries(arguments, &mut decoder, &mut lines, &mut has_header, out)?;
            (file, decoder) = (open(path)?, Decoder::default());
        }
    }
}

/// Prints the entries that the decoder has.
fn print_entries(
    arguments: &TraceArguments,
    decoder: &mut Decoder,
    lines: &mut Lines,
    has_header: &mut bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    loop {
        let entry = decoder.poll();
        if let Some(header) = decoder.header().filter(|_| !*has_header) {
            *has_header = true;
            put(out, arguments, &Lines::header(header))?;
        }
        match entry {
            Ok(Some(Entry::Label { session, link, name })) => lines.note_name(session, link, name),
            Ok(Some(Entry::Record(record))) => {
                // Before it is left out: phases are followed.
                let made = lines.lines(&record);
                if arguments.wants_link(&record, lines) {
                    made.iter().try_for_each(|line| put(out, arguments, line))?;
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                out.flush()?;
                return Err(error).with_context(|| arguments.file.display().to_string());
            }
        }
    }
}

fn put(out: &mut impl Write, arguments: &TraceArguments, line: &Line) -> anyhow::Result<()> {
    if arguments.wants_name(line.name) {
        let text = serde_json::to_string(line)?;
        writeln!(out, "{text}")?;
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("{} cannot be opened", path.display()))
}

/// Whether another file has the name now.
fn is_replaced(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino())
}

#[cfg(test)]
mod tests {
    use bonding_proto::trace::format::{Header, Side, put_header, put_label, put_record};
    use bonding_proto::trace::{Cause, LossTrigger, PhaseKind, RateChanged, TraceEvent};
    use bonding_proto::{Instant, LinkId};

    use super::*;

    fn file(folder: &Path) -> PathBuf {
        let mut bytes = Vec::new();
        put_header(&mut bytes, &Header { side: Side::Client, zero_unix_us: 1_700_000_000_000_000 });
        put_label(&mut bytes, 0, None, "vps");
        put_label(&mut bytes, 0, Some(LinkId(1)), "dsl");
        let mut put = |us: u64, event| {
            let at = Instant::from_nanos(us * 1_000);
            put_record(&mut bytes, &Record { at, session: 0, event });
        };
        for (us, phase, cause) in
            [(1_500, PhaseKind::Startup, None), (2_000, PhaseKind::Steady, Some(Cause::OwnQueue))]
        {
            put(
                us,
                TraceEvent::RateChanged(RateChanged {
                    link: LinkId(1),
                    phase,
                    cause,
                    loss_permille: 0,
                    capacity_bps: (phase == PhaseKind::Steady).then_some(10_000_000),
                    pacing_bps: 5_000_000,
                    rtt_us: Some(20_500),
                    queue_us: 0,
                    base_delay_us: None,
                    noise_us: 1_250,
                }),
            );
        }
        put(
            3_000,
            TraceEvent::PacketsLost {
                link: LinkId(2),
                trigger: LossTrigger::Passed,
                tries: 0,
                first: 5 << 48 | 77,
                count: 2,
            },
        );
        let path = folder.join("bond.trace");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn printed(file: PathBuf, links: &[&str], names: &[&str]) -> (String, Option<String>) {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let arguments = TraceArguments { file, links: owned(links), names: owned(names), follow: false };
        let mut out = Vec::new();
        let result = run(&arguments, &mut out);
        (String::from_utf8(out).unwrap(), result.err().map(|error| format!("{error:#}")))
    }

    #[test]
    fn a_trace_becomes_lines_with_names_and_units() {
        let folder = tempfile::tempdir().unwrap();
        let (text, error) = printed(file(folder.path()), &[], &[]);
        assert_eq!(error, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"time":0.0,"name":"bond:trace_started","group_id":"","data":{"format":"bond-trace-1","reference_time_ms":1700000000000.0,"vantage_point":"client"}}"#
        );
        assert_eq!(
            lines[2],
            r#"{"time":1.5,"name":"recovery:metrics_updated","group_id":"vps","data":{"link":"dsl","loss_permille":0,"noise_ms":1.25,"pacing_rate":5000000,"phase":"startup","queue_ms":0.0,"smoothed_rtt":20.5}}"#
        );
        assert_eq!(
            lines[3],
            r#"{"time":2.0,"name":"recovery:congestion_state_updated","group_id":"vps","data":{"link":"dsl","new":"steady","old":"startup","trigger":"own_queue"}}"#
        );
        assert_eq!(
            lines[5],
            r#"{"time":3.0,"name":"recovery:packet_lost","group_id":"vps","data":{"count":2,"flow":5,"link":"link2","packet_number":77,"tries":0,"trigger":"passed"}}"#
        );
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn links_and_names_choose_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let count = |links: &[&str], names: &[&str]| printed(path.clone(), links, names).0.lines().count();
        assert_eq!(count(&[], &["recovery:packet_lost"]), 1);
        assert_eq!(count(&[], &["recovery:packet_lost", "bond:"]), 2);
        assert_eq!(count(&["dsl"], &["recovery:"]), 4);
        assert_eq!(count(&["2"], &["recovery:"]), 1);
        assert_eq!(count(&["nothing"], &["recovery:"]), 0);
    }

    #[test]
    fn a_file_that_is_cut_off_is_printed_to_its_end_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let (text, error) = printed(path.clone(), &[], &[]);
        assert_eq!(text.lines().count(), 5);
        let place = bytes.len() - 27;
        let said = format!("{}: at byte {place}: the file ends within an entry", path.display());
        assert_eq!(error, Some(said));
    }
}
