mod model;

use super::*;

#[test]
fn without_keys_nothing_is_left_to_be_sent() {
    let mut buf = b"before".to_vec();
    buf.extend_from_slice(&Keyring::HEADER_ROOM);
    buf.extend_from_slice(b"secret");
    Keyring::new(KeyLimits::DEFAULT).seal((LinkId(0), UdpFlow::FIRST), &mut buf, 6, Instant::ZERO);
    assert_eq!(buf, [b"before".as_slice(), &[0; SEALED_HEADER_BYTES + 6]].concat());
}
