//! The writer of a trace. Records become bytes on the event loop's thread, which costs next to
//! nothing; a thread of its own writes them, because a disk may be slow for seconds. Chunks wait
//! for that thread in a queue; a chunk that finds no room there is dropped, and the file tells how
//! many records it had.
//!
//! The file takes half of the bytes that the trace may have; then it becomes the older half,
//! `FILE.1`, and a new file begins, with its own header and labels. An error of the disk ends the
//! trace with one warning.
//!
//! The thread begins with the first chunk: rights are reduced while there is one thread only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bonding_proto::trace::format::{self, Header, Side};
use bonding_proto::trace::{Level, Record, TraceEvent};
use bonding_proto::{Instant, LinkId, StateMachine};

use super::TracePlan;
use crate::engine::clock::Clock;

/// A chunk is written when it is so large. Chosen: one call of the system carries it.
const CHUNK_BYTES: usize = 64 << 10;
/// Or so old: a reader that follows the file sees events within this time.
const CHUNK_AGE: Duration = Duration::from_secs(1);
/// Chunks that may wait for the disk. Chosen: 2 MB, seconds of a busy trace.
const QUEUE_MAX: usize = 32;

/// A job for the thread.
#[derive(Debug)]
enum Job {
    /// Append this.
    Write(Vec<u8>),
    /// The file becomes the older half; this begins the new one.
    Rotate(Vec<u8>),
}

/// The writing side.
#[derive(Debug)]
enum Writer {
    /// The thread is not started: it begins with the first chunk.
    Waiting(File),
    Running(SyncSender<Job>, JoinHandle<()>),
    /// The disk failed.
    Ended,
}

/// Tells the names of links (of a session) and of peers (no link).
pub(crate) type Names<'a> = &'a dyn Fn(&mut dyn FnMut(u16, Option<LinkId>, &str));

/// One daemon's trace.
#[derive(Debug)]
pub(crate) struct TraceFile {
    plan: TracePlan,
    header: Header,
    writer: Writer,
    /// Kept to be reused.
    records: Vec<Record>,
    /// Labels that are not in the file yet, and records behind them.
    labels: Vec<u8>,
    chunk: Vec<u8>,
    chunk_records: u32,
    /// Bytes of the present file; 0: it has no header yet.
    bytes: u64,
    names: BTreeMap<(u16, Option<LinkId>), String>,
    flush_at: Instant,
    /// Records dropped because the disk is slow.
    dropped: u32,
}

impl TraceFile {
    /// Makes the file, in place of one that is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(plan: &TracePlan, side: Side, clock: Clock) -> io::Result<Self> {
        let file = File::create(&plan.file)?;
        let (system, now) = clock.system_and_now();
        let zero = system.saturating_sub(now.saturating_since(Instant::ZERO));
        let zero_unix_us = u64::try_from(zero.as_micros()).unwrap_or(0);
        Ok(Self {
            plan: plan.clone(),
            header: Header { side, zero_unix_us },
            writer: Writer::Waiting(file),
            records: Vec::new(),
            labels: Vec::new(),
            chunk: Vec::new(),
            chunk_records: 0,
            bytes: 0,
            names: BTreeMap::new(),
            flush_at: now,
            dropped: 0,
        })
    }

    /// How much is to be recorded.
    pub(crate) const fn level(&self) -> Level {
        self.plan.level
    }

    /// Takes the machine's new records. Never waits.
    pub(crate) fn take<M: StateMachine>(&mut self, machine: &mut M, names: Names<'_>, now: Instant) {
        if matches!(self.writer, Writer::Ended) {
            return;
        }
        machine.drain_trace(&mut self.records);
        for record in self.records.drain(..) {
            format::put_record(&mut self.chunk, &record);
            self.chunk_records = self.chunk_records.saturating_add(1);
        }
        if self.chunk.len() >= CHUNK_BYTES || now >= self.flush_at {
            self.flush(names, now);
            if matches!(self.writer, Writer::Ended) {
                machine.set_trace(Level::Off);
            }
        }
    }

    /// Writes the rest, and waits until it is written.
    pub(crate) fn finish<M: StateMachine>(&mut self, machine: &mut M, names: Names<'_>, now: Instant) {
        self.flush_at = now;
        self.take(machine, names, now);
        if let Writer::Running(sender, thread) = std::mem::replace(&mut self.writer, Writer::Ended) {
            drop(sender);
            // It does not panic; if it did, its message is out.
            let _ = thread.join();
        }
    }

    fn flush(&mut self, names: Names<'_>, now: Instant) {
        self.flush_at = now + CHUNK_AGE;
        self.note_names(names);
        if self.dropped > 0 {
            let event = TraceEvent::RecordsLost { records: std::mem::take(&mut self.dropped) };
            format::put_record(&mut self.chunk, &Record { at: now, session: 0, event });
            self.chunk_records = self.chunk_records.saturating_add(1);
        }
        if self.chunk.is_empty() && self.labels.is_empty() && self.bytes > 0 {
            return;
        }
        let ahead = self.bytes + (self.labels.len() + self.chunk.len()) as u64;
        let rotates = self.bytes > 0 && ahead > self.plan.bytes_max / 2;
        let mut bytes = Vec::with_capacity(self.labels.len() + self.chunk.len() + format::HEADER_BYTES);
        if rotates || self.bytes == 0 {
            format::put_header(&mut bytes, &self.header);
            self.labels.clear();
            for ((session, link), name) in &self.names {
                format::put_label(&mut bytes, *session, *link, name);
            }
        }
        bytes.append(&mut self.labels);
        bytes.append(&mut self.chunk);
        let (len, records) = (bytes.len() as u64, std::mem::take(&mut self.chunk_records));
        if self.hand_over(if rotates { Job::Rotate(bytes) } else { Job::Write(bytes) }) {
            self.bytes = if rotates { len } else { self.bytes + len };
        } else {
            self.dropped = self.dropped.saturating_add(records);
            // Labels that went with it are told again.
            self.names.clear();
        }
    }

    /// Notes names that are new, or others than before.
    fn note_names(&mut self, names: Names<'_>) {
        names(&mut |session, link, name| {
            let known = self.names.entry((session, link)).or_default();
            if known != name {
                name.clone_into(known);
                format::put_label(&mut self.labels, session, link, name);
            }
        });
    }

    /// Whether the thread takes it.
    fn hand_over(&mut self, job: Job) -> bool {
        if let Writer::Waiting(_) = self.writer {
            self.writer = match std::mem::replace(&mut self.writer, Writer::Ended) {
                Writer::Waiting(file) => start(self.plan.file.clone(), file),
                other @ (Writer::Running(..) | Writer::Ended) => other,
            };
        }
        let Writer::Running(sender, _) = &self.writer else { return false };
        match sender.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.writer = Writer::Ended;
                false
            }
        }
    }
}

/// Starts the thread.
fn start(path: PathBuf, file: File) -> Writer {
    let (sender, jobs) = sync_channel(QUEUE_MAX);
    let writes = move || {
        if let Err(error) = write_all(&path, file, &jobs) {
            tracing::warn!(file = %path.display(), %error, "the trace ends here: it cannot be written");
        }
    };
    match std::thread::Builder::new().name("trace".to_owned()).spawn(writes) {
        Ok(thread) => Writer::Running(sender, thread),
        Err(error) => {
            tracing::warn!(%error, "no trace is written: there is no thread for it");
            Writer::Ended
        }
    }
}

/// Writes until there is nothing more to come.
fn write_all(path: &Path, mut file: File, jobs: &Receiver<Job>) -> io::Result<()> {
    for job in jobs {
        match job {
            Job::Write(bytes) => file.write_all(&bytes)?,
            Job::Rotate(bytes) => {
                std::fs::rename(path, older(path))?;
                file = File::create(path)?;
                file.write_all(&bytes)?;
            }
        }
    }
    Ok(())
}

/// Where the older half is.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use bonding_proto::trace::format::{Decoder, Entry};
    use bonding_proto::{Datagram, Discard, PacketBuf, Timer, Transmit};

    use super::*;

    /// A machine that gives the records that a test put in.
    #[derive(Default)]
    struct Machine {
        records: Vec<Record>,
        is_off: bool,
    }

    impl StateMachine for Machine {
        fn handle_packet(&mut self, _: PacketBuf, _: Instant) -> Result<(), Discard> {
            Ok(())
        }
        fn handle_datagram(&mut self, _: Datagram, _: Instant) -> Result<(), Discard> {
            Ok(())
        }
        fn handle_timeout(&mut self, _: Instant) {}
        fn poll_transmit(&mut self, _: &mut Vec<u8>, _: NonZeroUsize, _: Instant) -> Option<Transmit> {
            None
        }
        fn poll_packet(&mut self) -> Option<PacketBuf> {
            None
        }
        fn close(&mut self, _: Instant) {}
        fn set_trace(&mut self, level: Level) {
            self.is_off = level == Level::Off;
        }
        fn drain_trace(&mut self, out: &mut Vec<Record>) {
            out.append(&mut self.records);
        }
        fn poll_timeout(&self) -> Option<(Instant, Timer)> {
            None
        }
    }

    fn record(ms: u64) -> Record {
        let event = TraceEvent::ResendsGivenUp { packets: 1 };
        Record { at: at(ms), session: 0, event }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn name_one(name: &mut dyn FnMut(u16, Option<LinkId>, &str)) {
        name(0, Some(LinkId(0)), "dsl");
    }

    fn read(path: &Path) -> (usize, usize) {
        let mut decoder = Decoder::default();
        decoder.push(&std::fs::read(path).unwrap());
        let (mut labels, mut records) = (0, 0);
        while let Some(entry) = decoder.poll().unwrap() {
            match entry {
                Entry::Label { name, .. } => {
                    assert_eq!((name.as_str(), records), ("dsl", 0), "names come first");
                    labels += 1;
                }
                Entry::Record(_) => records += 1,
            }
        }
        decoder.finish().unwrap();
        (labels, records)
    }

    #[test]
    fn files_stay_within_the_bound_and_each_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bond.trace");
        let plan = TracePlan { file: path.clone(), bytes_max: 100_000, level: Level::Decisions };
        let mut trace = TraceFile::create(&plan, Side::Client, Clock::start()).unwrap();
        let mut machine = Machine::default();
        for ms in 0..20_000 {
            machine.records.push(record(ms));
            trace.take(&mut machine, &name_one, at(ms));
        }
        trace.finish(&mut machine, &name_one, at(20_000));
        let sizes = [&path, &older(&path)].map(|path| std::fs::metadata(path).unwrap().len());
        assert!(sizes.iter().all(|bytes| *bytes <= 50_000), "{sizes:?}");
        assert!(sizes[1] > 25_000, "the older half is full: {sizes:?}");
        let (labels, records) = read(&path);
        let (older_labels, older_records) = read(&older(&path));
        assert_eq!((labels, older_labels), (1, 1));
        assert!(records + older_records > 2_000, "{records} {older_records}");
    }

    #[test]
    fn a_disk_that_fails_ends_the_trace_and_nothing_else() {
        // Every write to it fails for want of room.
        let plan = TracePlan { file: "/dev/full".into(), bytes_max: 100_000, level: Level::Decisions };
        let mut trace = TraceFile::create(&plan, Side::Client, Clock::start()).unwrap();
        let mut machine = Machine::default();
        let mut turns = 0;
        while !machine.is_off {
            turns += 1;
            assert!(turns < 10_000, "the trace goes on");
            machine.records.push(record(turns));
            trace.take(&mut machine, &name_one, at(turns * 1_000));
            std::thread::sleep(Duration::from_millis(1));
        }
        machine.records.push(record(turns));
        trace.take(&mut machine, &name_one, at(turns * 1_000));
        trace.finish(&mut machine, &name_one, at(turns * 1_000));
    }
}
