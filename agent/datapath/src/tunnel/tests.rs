//! Tests of a tunnel by itself, between two of them, and with boringtun's at the other end.

use super::*;

#[test]
fn packets_are_padded_to_16_but_not_past_the_mtu() {
    let padded = [0, 1, 16, 17, 1408, 1409, 1420, 1500].map(|bytes| padded_bytes(bytes, 1420));
    assert_eq!(padded, [0, 16, 16, 32, 1408, 1420, 1420, 1500]);
}
