//! Any bytes as what a TUN gives, and then as packets that are put together: every flow must come out as
//! it went in.
#![no_main]

use partywall_datapath::offload::{Batch, Burst, Coalescer, Merging};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut read = data.to_vec();
    let mut bytes = Vec::new();
    let mut items = Vec::new();
    if let Ok(mut burst) = Burst::read(&mut read) {
        while let Some(count) = burst.next_bytes() {
            let start = bytes.len();
            bytes.resize(start + count, 0);
            burst.write_next(&mut bytes[start..]);
            items.push(start..bytes.len());
        }
    }
    let batch = Batch::new(&bytes, &items);
    let mut coalescer = Coalescer::new(Merging { tcp: true, udp: true }, items.len());
    let mut again = Vec::new();
    for gathered in coalescer.gather(batch) {
        let mut write = gathered.headers().to_vec();
        gathered.payloads().for_each(|payload| write.extend_from_slice(payload));
        let mut burst = Burst::read(&mut write).expect("what we wrote ourselves can be read");
        while let Some(count) = burst.next_bytes() {
            let mut packet = vec![0; count];
            burst.write_next(&mut packet);
            again.push(packet);
        }
    }
    assert!(again.iter().map(Vec::as_slice).eq(batch.packets()));
});
