//! The Internet checksum, and the fields around it.
//!
//! Sources: RFC 1071; RFC 9293 §3.1; RFC 768; RFC 8200 §8.1.

/// The sum of big-endian 16-bit words, not folded. 64-bit sums of 32-bit words, which compilers
/// vectorise.
pub(crate) fn sum_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

/// The same as one word.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or_default()
}

/// The sum of the pseudo header: addresses, protocol and length of what follows the IP header. Not
/// folded.
pub(crate) fn pseudo_sum(packet: &[u8], protocol: u8, transport_bytes: usize) -> u64 {
    let ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let addresses = if ipv6 { 8..40 } else { 12..20 };
    sum_bytes(packet.get(addresses).unwrap_or_default())
        + u64::from(protocol)
        + u64::from(short(transport_bytes))
}

/// The checksum of what begins at `start`, whose field is zero.
pub(crate) fn transport_checksum(packet: &[u8], start: usize, protocol: u8) -> u16 {
    const UDP: u8 = 17;
    let transport = packet.get(start..).unwrap_or_default();
    let sum = !fold(pseudo_sum(packet, protocol, transport.len()) + sum_bytes(transport));
    // RFC 768: a transmitted zero means that there is no checksum.
    if protocol == UDP && sum == 0 { u16::MAX } else { sum }
}

/// Lengths inside an IP packet fit.
pub(crate) fn short(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// Writes where there is room.
pub(crate) fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = buffer.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A big-endian word.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)))
}
