//! What any bytes go through on their way to becoming an enrolment code.

use partywall_proto::enrolment::EnrolmentCode;

/// # Panics
/// If a code that was read is not written and read again as the same.
pub(crate) fn exercise(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(code) = text.parse::<EnrolmentCode>() {
        assert_eq!(code.to_text().parse(), Ok(code));
    }
    // The check bytes keep random texts out, so the address is also tried by itself.
    if let Ok(code) = EnrolmentCode::new([1; 16], [2; 32], text) {
        let read: EnrolmentCode = code.to_text().parse().expect("a code that was made is read");
        assert_eq!(read.address(), text);
    }
}
