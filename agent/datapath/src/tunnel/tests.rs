//! Tests of a tunnel by itself, between two of ours, and with boringtun's at the other end.

mod boringtun;
mod ends;
mod pair;

use super::live::inner_bytes;
use super::*;

#[test]
fn packets_are_padded_to_16_but_not_past_the_mtu() {
    let padded = [0, 1, 16, 17, 1408, 1409, 1420, 1500].map(|bytes| padded_bytes(bytes, 1420));
    assert_eq!(padded, [0, 16, 16, 32, 1408, 1420, 1420, 1500]);
}

#[test]
fn the_packet_ends_where_its_header_says_and_padding_is_left_out() {
    let opened = |inner: &[u8]| [inner, &[0; 16]].concat();
    let v4 = |bytes: u16| [&[0x45, 0], &bytes.to_be_bytes()[..], &[0; 28]].concat();
    let v6 = |payload: u16| [&[0x60, 0, 0, 0], &payload.to_be_bytes()[..], &[0; 42]].concat();
    for (inner, bytes) in [
        (Vec::new(), Ok(0)),
        (v4(20), Ok(20)),
        (v4(32), Ok(32)),
        (v4(33), Err(TunnelError::NotIp)),
        (v4(19), Err(TunnelError::NotIp)),
        (v4(0), Err(TunnelError::NotIp)),
        (v6(0), Ok(40)),
        (v6(8), Ok(48)),
        (v6(9), Err(TunnelError::NotIp)),
        (vec![0x45, 0, 0], Err(TunnelError::NotIp)),
        (vec![0x50; 32], Err(TunnelError::NotIp)),
    ] {
        assert_eq!(inner_bytes(&opened(&inner)), bytes, "{inner:?}");
    }
}
