use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Instant;
use crate::packet::PacketBuf;

/// An IPv4 packet of `bytes` bytes whose contents follow from its counter.
fn packet(counter: u64, bytes: usize) -> PacketBuf {
    let mut data = vec![0; bytes.max(28)];
    let length = u16::try_from(data.len()).unwrap();
    for (at, byte) in data.iter_mut().enumerate() {
        let at = at as u64;
        let [low, ..] = counter.wrapping_mul(167).wrapping_mul(at + 3).wrapping_add(at >> 3).to_le_bytes();
        *byte = low;
    }
    data[0] = 0x45;
    data[2..4].copy_from_slice(&length.to_be_bytes());
    data[6..8].copy_from_slice(&[0, 0]);
    data[9] = 17;
    Bytes::from(data).into()
}

/// Sends packets of these sizes from `first` on, with a symbol over the last `window` after every
/// `every`; `packets` and `symbols` name the lost ones. Returns the packets received and the
/// packets restored.
fn transfer(
    first: u64,
    sizes: &[usize],
    (every, window): (usize, usize),
    lost: &dyn Fn(u64) -> bool,
    symbol_lost: &dyn Fn(u8) -> bool,
) -> Vec<(u64, PacketBuf)> {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut restored = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        let counter = first + at as u64;
        let packet = packet(counter, *size);
        encoder.push(counter, packet.clone(), Instant::ZERO);
        encoder.keep(window, Instant::ZERO);
        if !lost(counter) {
            assert_eq!(decoder.on_packet(counter, &packet, &mut restored), 0);
        }
        if (at + 1) % every == 0
            && let Some((cover, symbol)) = encoder.symbol()
            && !symbol_lost(cover.number)
        {
            let on_wire = Cover { first: cover.first % (1 << 32), ..cover };
            assert_eq!(decoder.on_symbol(on_wire, &symbol, &mut restored), Ok(0));
        }
    }
    for (counter, restored) in &restored {
        assert!(lost(*counter), "{counter} was never lost");
        assert_eq!(*restored, packet(*counter, sizes[usize::try_from(counter - first).unwrap()]));
    }
    restored
}

#[test]
fn one_loss_is_restored_by_the_next_symbol() {
    let restored = transfer(7, &[100; 10], (5, 10), &|counter| counter == 9, &|_| false);
    assert_eq!(restored.len(), 1);
    // Across the wrap of the 32 bits on the wire.
    let first = (1 << 32) - 5;
    assert_eq!(transfer(first, &[100; 10], (10, 10), &|counter| counter == first + 8, &|_| false).len(), 1);
}

#[test]
fn a_symbol_is_as_long_as_the_longest_packet() {
    let mut encoder = Encoder::default();
    for (counter, size) in [100, 1_400, 60].into_iter().enumerate() {
        encoder.push(counter as u64, packet(counter as u64, size), Instant::ZERO);
    }
    assert_eq!(encoder.bytes(), 1_560);
    let (cover, symbol) = encoder.symbol().unwrap();
    assert_eq!((cover, symbol.len()), (Cover { first: 0, count: 3, number: 0 }, 1_400));
    encoder.push(9, packet(9, 60), Instant::ZERO);
    assert_eq!((encoder.count(), encoder.bytes()), (1, 60));
    assert!(encoder.symbol().is_none(), "a jump begins anew");
}

#[test]
fn symbols_that_cannot_be_are_refused() {
    let mut decoder = Decoder::default();
    let mut restored = Vec::new();
    decoder.on_packet(5, &packet(5, 100), &mut restored);
    let mut says =
        |count, symbol: &[u8]| decoder.on_symbol(Cover { first: 5, count, number: 0 }, symbol, &mut restored);
    assert_eq!(says(0, &[1; 100]), Err(Refused));
    assert_eq!(says(1, &[1; 100]), Err(Refused));
    assert_eq!(says(129, &[1; 100]), Err(Refused));
    assert_eq!(says(2, &[]), Err(Refused));
    assert_eq!(says(2, &[1; 99]), Err(Refused), "shorter than what it covers");
    assert_eq!(says(2, &[1; 100]), Ok(1), "what it gives is no packet");
    assert_eq!(restored, []);
}

proptest! {
    /// The promise of the module's head.
    #[test]
    fn any_losses_that_symbols_suffice_for_are_restored(
        first in 0u64..1 << 48, sizes in proptest::collection::vec(28usize..1_500, 2..128),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..16), number: u8,
    ) {
        let lost: std::collections::BTreeSet<u64> =
            picks.iter().map(|pick| first + pick.index(sizes.len()) as u64).collect();
        // The decoder knows packets only from the first one that arrived.
        prop_assume!(!lost.contains(&first));
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for _ in 0..number {
            encoder.push(0, packet(0, 28), Instant::ZERO);
            encoder.push(1, packet(1, 28), Instant::ZERO);
            encoder.symbol();
        }
        let mut restored = Vec::new();
        for (counter, size) in (first..).zip(&sizes) {
            encoder.push(counter, packet(counter, *size), Instant::ZERO);
            if !lost.contains(&counter) {
                decoder.on_packet(counter, &packet(counter, *size), &mut restored);
            }
        }
        for _ in 0..lost.len() {
            prop_assert_eq!(&restored, &[]);
            let (cover, symbol) = encoder.symbol().unwrap();
            decoder.on_symbol(cover, &symbol, &mut restored).unwrap();
        }
        restored.sort_by_key(|(counter, _)| *counter);
        let expected: Vec<(u64, PacketBuf)> =
            lost.iter().map(|at| (*at, packet(*at, sizes[usize::try_from(at - first).unwrap()]))).collect();
        prop_assert_eq!(restored, expected);
    }

    /// Whatever is lost, nothing is restored that was not sent, and memory stays within bounds.
    #[test]
    fn nothing_else_is_produced(
        sizes in proptest::collection::vec(28usize..1_500, 2..600), every in 2usize..9, window in 2usize..48,
        losses in proptest::collection::vec(any::<bool>(), 64), rare: bool,
    ) {
        let lost = |counter: u64| losses[(counter * 7 % 64) as usize] && (!rare || losses[(counter % 64) as usize]);
        transfer(3, &sizes, (every, window), &lost, &|number| losses[usize::from(number % 64)]);
    }

    #[test]
    fn any_symbols_do_no_harm(
        steps in proptest::collection::vec(
            (any::<bool>(), 0u64..400, 0u8..140, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..200,
        ),
        far: u64,
    ) {
        let mut decoder = Decoder::default();
        let mut restored = Vec::new();
        for (is_packet, counter, count, number, bytes) in steps {
            let counter = if counter == 399 { far } else { counter };
            if is_packet {
                decoder.on_packet(counter % (1 << 48), &packet(counter, bytes.len()), &mut restored);
            } else {
                let _ = decoder.on_symbol(Cover { first: counter % (1 << 32), count, number }, &bytes, &mut restored);
            }
            prop_assert!(decoder.rows_within_bounds());
        }
        prop_assert!(restored.iter().all(|(_, packet)| crate::qos::flow::parse(packet).is_ok()));
    }
}
