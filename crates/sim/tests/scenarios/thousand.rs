//! A thousand clients of one server: all connect, each gets its share, and all come back when the
//! server restarts.

use bonding_testkit::crowd::{Crowd, server};

const CLIENTS: u16 = 1_000;

#[test]
fn a_thousand_clients_share_a_server() {
    let mut crowd = Crowd::new(CLIENTS, 2);
    // All at once: more than the server accepts without cookies.
    crowd.run(1_500, false);
    assert_eq!(crowd.connected(), usize::from(CLIENTS));
    assert!(crowd.cookies >= 500, "{} cookies", crowd.cookies);
    crowd.assert_served();

    crowd.server = server(CLIENTS, 2, crowd.now);
    crowd.run(2_500, false);
    assert_eq!(crowd.connected(), usize::from(CLIENTS));
    crowd.assert_served();
}
