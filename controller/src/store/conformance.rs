//! What every store must do, whichever it is: one suite, run against each implementation.

use std::sync::Arc;

use super::{Precondition, Store, StoreError, Transaction, Write};

/// Runs the suite; `open` makes an empty store of that name.
pub(super) async fn run<S: Store>(open: impl Fn(&str) -> S) {
    preconditions_decide(open("preconditions")).await;
    keys_come_in_order(open("order")).await;
    a_later_write_in_a_transaction_wins(open("later")).await;
    a_watch_has_no_gap(Arc::new(open("watch"))).await;
    racing_increments_are_all_counted(Arc::new(open("race"))).await;
}

fn put(key: &str, value: &str) -> Write {
    Write { key: key.into(), value: Some(value.into()) }
}

fn delete(key: &str) -> Write {
    Write { key: key.into(), value: None }
}

fn plain(writes: Vec<Write>) -> Transaction {
    Transaction { preconditions: Vec::new(), writes }
}

async fn preconditions_decide(store: impl Store) {
    assert_eq!(store.revision(), 0);
    let make = Transaction {
        preconditions: vec![Precondition::Absent("a".into())],
        writes: vec![put("a", "1"), put("b", "1")],
    };
    assert_eq!(store.transact(make.clone()).await.unwrap(), 1);
    assert!(matches!(
        store.transact(make).await,
        Err(StoreError::Conflict { key }) if key == b"a"
    ));
    let change = |revision| Transaction {
        preconditions: vec![Precondition::At("a".into(), revision)],
        writes: vec![put("a", "2"), delete("b")],
    };
    assert!(store.transact(change(7)).await.is_err());
    assert_eq!(store.get(b"b").await.unwrap().unwrap().value, b"1");
    assert_eq!(store.transact(change(1)).await.unwrap(), 2);
    let a = store.get(b"a").await.unwrap().unwrap();
    assert_eq!((a.revision, a.value.as_slice()), (2, &b"2"[..]));
    assert!(store.get(b"b").await.unwrap().is_none());
    assert!(store.transact(change(1)).await.is_err(), "an old revision must not pass");
    // A refused transaction uses up no revision.
    assert_eq!(store.transact(plain(vec![put("b", "3")])).await.unwrap(), 3);
    assert_eq!(store.revision(), 3);
}

async fn keys_come_in_order(store: impl Store) {
    let keys = ["p/b", "p/a", "p/a/x", "q", "p0", "p/\u{7f}"];
    store.transact(plain(keys.iter().map(|key| put(key, key)).collect())).await.unwrap();
    let read = |after: Option<&'static [u8]>, limit| store.range(b"p/", after, limit);
    let names = |entries: Vec<super::Entry>| {
        entries.into_iter().map(|e| String::from_utf8(e.key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(read(None, 10).await.unwrap()), ["p/a", "p/a/x", "p/b", "p/\u{7f}"]);
    assert_eq!(names(read(None, 2).await.unwrap()), ["p/a", "p/a/x"]);
    assert_eq!(names(read(Some(b"p/a/x"), 1).await.unwrap()), ["p/b"]);
    assert_eq!(names(read(Some(b"p/zzz"), 9).await.unwrap()), ["p/\u{7f}"]);
    assert_eq!(names(store.range(b"", None, 99).await.unwrap()).len(), 6);
}

async fn a_later_write_in_a_transaction_wins(store: impl Store) {
    let writes = vec![put("a", "1"), delete("a"), put("a", "2"), put("b", "1"), delete("b")];
    store.transact(plain(writes)).await.unwrap();
    assert_eq!(store.get(b"a").await.unwrap().unwrap().value, b"2");
    assert!(store.get(b"b").await.unwrap().is_none());
}

async fn a_watch_has_no_gap<S: Store>(store: Arc<S>) {
    for n in 0..10 {
        store.transact(plain(vec![put("k", &n.to_string())])).await.unwrap();
    }
    let mut watch = store.watch(4).unwrap();
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        for n in 10..100 {
            writer.transact(plain(vec![put("k", &n.to_string())])).await.unwrap();
        }
    });
    for revision in 5..=100 {
        let change = watch.next().await.unwrap();
        assert_eq!(change.revision, revision);
        assert_eq!(change.writes, [put("k", &(revision - 1).to_string())]);
    }
    writing.await.unwrap();
}

async fn racing_increments_are_all_counted<S: Store>(store: Arc<S>) {
    store.transact(plain(vec![put("n", "0")])).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut done = 0;
                while done < 20 {
                    let n = store.get(b"n").await.unwrap().unwrap();
                    let value: u32 = String::from_utf8(n.value).unwrap().parse().unwrap();
                    let next = Transaction {
                        preconditions: vec![Precondition::At("n".into(), n.revision)],
                        writes: vec![put("n", &(value + 1).to_string())],
                    };
                    match store.transact(next).await {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get(b"n").await.unwrap().unwrap().value, b"160");
}
