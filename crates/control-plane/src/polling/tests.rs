#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;

const LONG: Duration = Duration::from_secs(25);

fn mailbox() -> Arc<Mailbox> {
    Arc::new(Mailbox::new(4, 64))
}

fn text(number: u64) -> Outgoing {
    Outgoing::Text(format!("{{\"type\":\"n{number}\"}}"))
}

fn kinds(batch: &PollBatch) -> Vec<&str> {
    batch.messages.iter().map(|message| message["type"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_has_not_arrived_is_handed_out_again_and_what_has_is_forgotten() {
    let mailbox = mailbox();
    for number in 1..=3 {
        mailbox.put(text(number)).await.unwrap();
    }
    for _ in 0..2 {
        let batch = mailbox.take(0, LONG).await.unwrap();
        assert_eq!((batch.first, kinds(&batch)), (1, vec!["n1", "n2", "n3"]));
    }
    let batch = mailbox.take(2, LONG).await.unwrap();
    assert_eq!((batch.first, kinds(&batch)), (3, vec!["n3"]));
    // What was never sent has not arrived, and what was forgotten cannot be had again.
    assert_eq!(mailbox.take(4, LONG).await, Err(OutOfOrder));
    assert_eq!(mailbox.take(1, LONG).await, Err(OutOfOrder));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_message_and_not_for_ever() {
    let mailbox = mailbox();
    let begun = Instant::now();
    let batch = mailbox.take(0, LONG).await.unwrap();
    assert_eq!((batch.messages.len(), batch.ended, begun.elapsed()), (0, false, LONG));
    let (batch, put) = tokio::join!(mailbox.take(0, LONG), mailbox.put(text(1)));
    put.unwrap();
    assert_eq!((kinds(&batch.unwrap()), begun.elapsed()), (vec!["n1"], LONG));
}

#[tokio::test(start_paused = true)]
async fn a_ping_and_a_newer_request_end_the_wait_of_one() {
    let mailbox = mailbox();
    let begun = Instant::now();
    let (batch, _) = tokio::join!(mailbox.take(0, LONG), mailbox.put(Outgoing::Ping));
    assert_eq!((batch.unwrap().messages.len(), begun.elapsed()), (0, Duration::ZERO));
    // The newer one gets the message.
    let (older, newer, _) = tokio::join!(mailbox.take(0, LONG), mailbox.take(0, LONG), mailbox.put(text(1)));
    assert_eq!(older.unwrap().messages.len() + newer.as_ref().unwrap().messages.len(), 1);
    assert_eq!(kinds(&newer.unwrap()), ["n1"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_bounded_and_waits_for_room() {
    let mailbox = mailbox();
    for number in 1..=4 {
        mailbox.put(text(number)).await.unwrap();
    }
    let late = tokio::time::timeout(LONG, mailbox.put(text(5))).await;
    assert!(late.is_err(), "a fifth message fits into four places");
    let (put, batch) = tokio::join!(mailbox.put(text(5)), mailbox.take(1, LONG));
    put.unwrap();
    assert_eq!(batch.unwrap().first, 2);
    // A single message fits, however long it is, and none beside it.
    let mailbox = self::mailbox();
    mailbox.put(Outgoing::Text("\"".to_owned() + &"x".repeat(100) + "\"")).await.unwrap();
    assert!(tokio::time::timeout(LONG, mailbox.put(text(2))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_with_the_last_message() {
    let mailbox = mailbox();
    mailbox.put(text(1)).await.unwrap();
    mailbox.put(Outgoing::Close).await.unwrap();
    assert_eq!(mailbox.put(text(2)).await, Err(Over));
    let batch = mailbox.take(0, LONG).await.unwrap();
    assert_eq!((kinds(&batch), batch.ended), (vec!["n1"], true));
    mailbox.abandoned(LONG).await;
    let again = mailbox.take(1, LONG).await.unwrap();
    assert_eq!((again.messages.len(), again.ended), (0, true));
}

#[tokio::test(start_paused = true)]
async fn nobody_who_asks_for_long_is_an_end_and_a_request_that_waits_is_none() {
    let mailbox = mailbox();
    let begun = Instant::now();
    let dead_after = Duration::from_secs(5);
    let (_, ()) = tokio::join!(mailbox.take(0, LONG), mailbox.abandoned(dead_after));
    assert_eq!(begun.elapsed(), LONG + dead_after);
}
