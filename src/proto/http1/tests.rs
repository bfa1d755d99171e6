//! What peers see. Both machines are fed whole messages and single bytes; the outcome may not differ.

mod oracle;
mod requests;
mod responses;
mod roundtrip;
mod sending;
mod work;

use ringport_platform::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};

fn tx_queue() -> TxQueue {
    TxQueue::new(Pool::new(PoolSpec::default()))
}

fn sent(tx: &TxQueue) -> Vec<u8> {
    tx.slices().flatten().copied().collect()
}

fn sent_text(tx: &TxQueue) -> String {
    String::from_utf8(sent(tx)).expect("what is sent in tests is text")
}

fn rx_queue(bytes: &[u8]) -> RxQueue {
    let mut rx = RxQueue::new();
    rx.push(PoolBuf::copied(bytes));
    rx
}
