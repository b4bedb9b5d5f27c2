use bytes::Bytes;

use super::*;
use crate::wire::parse_plain;

fn frame(counter: u64, bytes: &[u8]) -> DataFrame {
    let packet = PacketBuf::from(Bytes::copy_from_slice(bytes));
    DataFrame { seq_num: wire::data_seq_num(1_027, counter), modifiers: Modifiers::AT_ONCE, packet }
}

/// The vector of PROTOCOL.md.
#[test]
fn vector() {
    let mut encoder = Encoder::default();
    for (counter, bytes) in [(40, &[0x45, 0, 0, 4][..]), (41, &[0x45, 0, 0, 5, 1])] {
        encoder.push(counter, frame(counter, bytes).packet, Instant::ZERO);
    }
    let (cover, symbol) = (0..4).map(|_| encoder.symbol().unwrap()).last().unwrap();
    let mut bytes = Vec::new();
    let seq_num = repair_seq_num(1_027, cover);
    wire::put_frame_header(&mut bytes, seq_num, Kind::Repair, Modifiers::AT_ONCE, 5);
    bytes.extend_from_slice(&symbol);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, "0403020300000028480005290000c90d");
    let parsed = parse_plain(&bytes).unwrap();
    assert_eq!((parsed.kind, parse_repair(parsed.seq_num)), (Kind::Repair, (1_027, cover)));
}

#[test]
fn redundancy_follows_losses_and_their_bursts() {
    let auto = Protection::new(Fec::Auto, false);
    assert_eq!(auto.spacing(true, 0, 10), None);
    assert_eq!(auto.spacing(true, 2, 30), None);
    assert_eq!(auto.spacing(false, 500, 10), None, "what is not realtime");
    assert_eq!(auto.spacing(true, 3, 10), Some(32));
    assert_eq!(auto.spacing(true, 10, 10), Some(17));
    assert_eq!(auto.spacing(true, 10, 20), Some(8));
    assert_eq!(auto.spacing(true, 30, 10), Some(6));
    assert_eq!(auto.spacing(true, 90, 99), Some(4));
    assert_eq!(Protection::new(Fec::Auto, true).spacing(true, 30, 10), Some(8));
    let fixed = |permille| Protection::new(Fec::Fixed(permille), true).spacing(false, 0, 10);
    assert_eq!([fixed(1), fixed(100), fixed(200), fixed(1_000)], [128, 10, 5, 1].map(Some));
    assert_eq!(Protection::new(Fec::Off, true).spacing(true, 500, 10), None);
}

#[test]
fn memory_is_bounded_and_idle_slots_are_forgotten() {
    let mut protection = Protection::new(Fec::Fixed(10), true);
    let packet = vec![0x45; 1_400];
    let now = Instant::from_nanos(1_000_000_000);
    for step in 0..20_000u64 {
        let slot = u16::try_from(step % 400).unwrap();
        let mut frame = frame(step / 400, &packet);
        frame.seq_num = wire::data_seq_num(slot, step / 400);
        protection.on_sent(&frame, 100, now);
        let cover = Cover { first: step / 400, count: 2, number: 0 };
        let _ = protection.on_symbol(slot, cover, &packet, now);
        protection.on_packet(slot, step / 400, &packet);
        assert!(protection.sender_bytes <= BYTES_MAX && protection.receiver_bytes <= BYTES_MAX);
    }
    assert!(protection.senders.len() > 50 && protection.receivers.len() > 50);
    let bytes: usize = protection.senders.iter().map(|one| one.encoder.bytes()).sum();
    assert_eq!(bytes, protection.sender_bytes);
    let bytes: usize = protection.receivers.iter().map(Decoder::bytes).sum();
    assert_eq!(bytes, protection.receiver_bytes);
    protection.sweep(now + IDLE * 11);
    assert_eq!((protection.senders.len(), protection.sender_bytes), (0, 0));
    assert_eq!((protection.receivers.len(), protection.receiver_bytes), (0, 0));
}

/// Symbols over packets that never come, as many as a peer can send: each is an equation that
/// costs all others.
#[test]
fn symbols_alone_make_little_work() {
    let mut protection = Protection::new(Fec::Auto, true);
    let packet = vec![0x45; 1_400];
    let now = Instant::from_nanos(1_000_000_000);
    let cover = |number: u8| Cover { first: 1, count: 100, number };
    protection.on_symbol(7, cover(0), &packet, now).unwrap();
    for counter in 0..50 {
        protection.on_packet(7, counter * 2, &packet);
    }
    let mut taken = 0_u64;
    for number in 0..10_000_u32 {
        let number = u8::try_from(number % 256).unwrap();
        taken += u64::from(protection.on_symbol(7, cover(number), &packet, now).is_ok());
    }
    assert!((10..500).contains(&taken), "{taken}");
    assert_eq!(protection.on_symbol(7, cover(0), &packet, now), Err(Discard::RepairUnpaid));
    protection.on_packet(7, 200, &packet);
    assert_eq!(protection.on_symbol(7, cover(1), &packet, now), Ok(()));
}

/// Symbols for more slots than are kept, each in turn: none searches for the slot that goes.
#[test]
fn symbols_of_many_slots_touch_what_their_bytes_pay_for() {
    let mut protection = Protection::new(Fec::Auto, true);
    let now = Instant::from_nanos(1_000_000_000);
    let cover = Cover { first: 1, count: 128, number: 0 };
    for number in 0..20_000_u16 {
        assert_eq!(protection.on_symbol(number, cover, &[0x45], now), Ok(()));
        assert!(protection.receivers.len() <= SLOTS_MAX);
    }
    assert!(protection.touched() <= 20_000, "{}", protection.touched());
}

#[test]
fn a_symbol_comes_after_its_spacing_or_a_tenth_of_a_second() {
    let mut protection = Protection::new(Fec::Auto, true);
    let mut due = Vec::new();
    for counter in 0..60u64 {
        // 50 a second, then 200.
        let ms = if counter < 30 { counter * 20 } else { 450 + counter * 5 };
        let now = Instant::ZERO + Duration::from_millis(ms);
        let packet = [0x45; 60];
        if let Some((cover, _)) = protection.on_sent(&frame(counter, &packet), 10, now) {
            assert_eq!(cover.first + u64::from(cover.count) - 1, counter);
            due.push(counter);
        }
    }
    assert_eq!(due, [5, 11, 17, 23, 29, 39, 49, 59]);
}
