//! The format of files: every kind comes back as it was, and damage is told, never a panic.

use proptest::prelude::*;

use super::format::{
    Decoder, Entry, FormatError, HEADER_BYTES, Header, NAME_BYTES_MAX, Problem, Side, cause_from_id,
    phase_from_id, put_header, put_label, put_record,
};
use super::*;
use crate::packet::LinkId;
use crate::time::Instant;
use crate::view::LinkState;

const HEADER: Header = Header { side: Side::Server, zero_unix_us: 1_700_000_000_000_000 };

/// The entries of a whole file, read in pieces of `step` bytes.
fn read(file: &[u8], step: usize) -> Result<Vec<Entry>, FormatError> {
    let mut decoder = Decoder::default();
    let mut entries = Vec::new();
    for piece in file.chunks(step.max(1)) {
        decoder.push(piece);
        while let Some(entry) = decoder.poll()? {
            entries.push(entry);
        }
    }
    decoder.finish()?;
    Ok(entries)
}

fn file(records: &[Record]) -> Vec<u8> {
    let mut file = Vec::new();
    put_header(&mut file, &HEADER);
    records.iter().for_each(|record| put_record(&mut file, record));
    file
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn link() -> impl Strategy<Value = LinkId> {
    (0..=u8::MAX).prop_map(LinkId)
}

fn some_link() -> impl Strategy<Value = Option<LinkId>> {
    prop::option::of((0..u8::MAX).prop_map(LinkId))
}

fn phase() -> impl Strategy<Value = PhaseKind> {
    (1..=3_u8).prop_filter_map("every phase has a number", phase_from_id)
}

fn cause() -> impl Strategy<Value = Option<Cause>> {
    (0..20_u8).prop_map(cause_from_id)
}

fn rate() -> impl Strategy<Value = TraceEvent> {
    let ids = (link(), phase(), cause(), any::<u16>());
    let rates = (prop::option::of(1..=u64::MAX), any::<u64>());
    let rtt = prop::option::of(0..u32::MAX);
    (ids, rates, rtt, any::<u32>(), prop::option::of(i64::MIN..i64::MAX), any::<u32>()).prop_map(
        |(ids, rates, rtt_us, queue_us, base_delay_us, noise_us)| {
            let (link, phase, cause, loss_permille) = ids;
            let (capacity_bps, pacing_bps) = rates;
            TraceEvent::RateChanged(RateChanged {
                link,
                phase,
                cause,
                loss_permille,
                capacity_bps,
                pacing_bps,
                rtt_us,
                queue_us,
                base_delay_us,
                noise_us,
            })
        },
    )
}

/// Every kind with every value of its fields.
fn event() -> impl Strategy<Value = TraceEvent> {
    const STATES: &[LinkState] = &[LinkState::Down, LinkState::Suspect, LinkState::Up];
    prop_oneof![
        (link(), one_of(STATES), one_of(STATES)).prop_map(|(link, from, to)| TraceEvent::LinkState {
            link,
            from,
            to
        }),
        rate(),
        any::<(u16, u32, u32)>().prop_map(|(flow, before, links)| TraceEvent::FlowLinks {
            flow,
            before,
            links
        }),
        (link(), one_of(LossTrigger::ALL), any::<(u8, u64, u32)>()).prop_map(
            |(link, trigger, (tries, first, count))| {
                TraceEvent::PacketsLost { link, trigger, tries, first, count }
            }
        ),
        (link(), prop::option::of(one_of(LossTrigger::ALL)), any::<(u8, bool, u64, u16)>()).prop_map(
            |(link, trigger, (tries, is_second, seq_num, bytes))| {
                TraceEvent::PacketResent { link, trigger, tries, is_second, seq_num, bytes }
            }
        ),
        any::<u32>().prop_map(|packets| TraceEvent::ResendsGivenUp { packets }),
        (some_link(), any::<(u64, u32)>()).prop_map(|(link, (first, count))| TraceEvent::GapOpened {
            link,
            first,
            count
        }),
        (one_of(GapEnd::ALL), some_link(), any::<(u64, u32, u32, u32)>()).prop_map(
            |(by, link, (first, count, waited_us, held))| {
                TraceEvent::GapClosed { by, link, first, count, waited_us, held }
            }
        ),
        (some_link(), any::<u64>()).prop_map(|(link, seq_num)| TraceEvent::PacketLate { link, seq_num }),
        (one_of(KeyChange::ALL), any::<u32>())
            .prop_map(|(change, rekeys)| TraceEvent::KeysChanged { change, rekeys }),
        one_of(ResetCause::ALL).prop_map(|cause| TraceEvent::SessionReset { cause }),
        (link(), any::<(u64, u16)>()).prop_map(|(link, (seq_num, bytes))| TraceEvent::PacketSent {
            link,
            seq_num,
            bytes
        }),
        any::<u32>().prop_map(|records| TraceEvent::RecordsLost { records }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    // Files count microseconds.
    (0..1_u64 << 50, any::<u16>(), event()).prop_map(|(us, session, event)| Record {
        at: Instant::from_nanos(us * 1_000),
        session,
        event,
    })
}

proptest! {
    #[test]
    fn every_record_comes_back_as_it_was(
        records in prop::collection::vec(record(), 0..40),
        step in 1..100_usize,
    ) {
        let expected: Vec<Entry> = records.iter().copied().map(Entry::Record).collect();
        prop_assert_eq!(read(&file(&records), step), Ok(expected));
    }

    #[test]
    fn a_file_that_is_cut_off_gives_its_whole_records_and_the_offset_of_the_cut(
        records in prop::collection::vec(record(), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = file(&records);
        let len = cut.index(whole.len());
        let mut decoder = Decoder::default();
        decoder.push(&whole[..len]);
        let mut count = 0;
        while let Some(entry) = decoder.poll().unwrap() {
            prop_assert_eq!(entry, Entry::Record(records[count]));
            count += 1;
        }
        let ends = if len < HEADER_BYTES { 0 } else { file(&records[..count]).len() };
        let expected = if ends == len && len > 0 {
            Ok(())
        } else {
            Err(FormatError { offset: ends as u64, problem: Problem::Truncated })
        };
        prop_assert_eq!(decoder.finish(), expected);
    }

    #[test]
    fn a_damaged_file_is_read_to_its_damage_or_told_where_it_is(
        records in prop::collection::vec(record(), 1..20),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        step in 1..100_usize,
    ) {
        let mut damaged = file(&records);
        for (at, byte) in damage {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        if let Err(error) = read(&damaged, step) {
            prop_assert!(error.offset <= damaged.len() as u64, "{}", error);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut whole = file(&[]);
        whole.extend_from_slice(&bytes);
        let _ = read(&whole, 7);
        let _ = read(&bytes, 7);
    }
}

#[test]
fn kinds_and_fields_of_a_later_version_are_passed_over() {
    let record = Record { at: Instant::ZERO, session: 3, event: TraceEvent::ResendsGivenUp { packets: 7 } };
    let mut whole = file(&[]);
    // A kind that is not known, and a known one with a field more.
    whole.extend_from_slice(&[200, 3, 1, 2, 3]);
    let start = whole.len();
    put_record(&mut whole, &record);
    whole[start + 1] += 2;
    whole.extend_from_slice(&[9, 9]);
    assert_eq!(read(&whole, 5), Ok(vec![Entry::Record(record)]));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let problem = |bytes: &[u8]| read(bytes, 3).unwrap_err();
    assert_eq!(problem(b"time_s,link").problem, Problem::NotATrace);
    let mut newer = file(&[]);
    newer[8] = 2;
    assert_eq!(problem(&newer).to_string(), "at byte 0: version 2 of the format is newer than this program");
    let event = TraceEvent::SessionReset { cause: ResetCause::PeerClosed };
    let mut whole = file(&[Record { at: Instant::ZERO, session: 0, event }]);
    *whole.last_mut().unwrap() = 99;
    assert_eq!(problem(&whole).to_string(), "at byte 24: an entry of kind 11 has a field without a meaning");
    let mut short = file(&[]);
    short.extend_from_slice(&[11, 4, 0, 0, 0, 0]);
    assert_eq!(problem(&short).to_string(), "at byte 24: an entry of kind 11 is too short");
    assert_eq!(problem(&[]), FormatError { offset: 0, problem: Problem::Truncated });
}

#[test]
fn names_are_kept_and_cut_between_letters() {
    let mut whole = file(&[]);
    put_label(&mut whole, 4, Some(LinkId(2)), "dsl");
    put_label(&mut whole, 4, None, &"ü".repeat(NAME_BYTES_MAX));
    let long = Entry::Label { session: 4, link: None, name: "ü".repeat(NAME_BYTES_MAX / 2) };
    let short = Entry::Label { session: 4, link: Some(LinkId(2)), name: "dsl".to_owned() };
    assert_eq!(read(&whole, 11), Ok(vec![short, long]));
}
