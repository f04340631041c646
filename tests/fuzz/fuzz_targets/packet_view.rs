//! Any bytes as an inner packet. Seeds: `agent/datapath/corpus/packet_view`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = partywall_datapath::packet::parse(data);
});
