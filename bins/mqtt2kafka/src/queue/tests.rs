use super::*;
use bytes::Bytes;
use mqtt_client::Properties;

impl Queue {
    /// A message comes, with its packet identifier for a payload.
    fn receive(&mut self, qos: QoS, pkid: u16) {
        self.receive_again(qos, pkid, false);
    }

    fn receive_again(&mut self, qos: QoS, pkid: u16, dup: bool) {
        let Some(Place { number, connection }) = self.place(qos, pkid, dup, 0) else { return };
        let payload = Bytes::from(pkid.to_string());
        self.push(Message { number, connection, qos, dup, ..Message::of(payload, Properties::default()) });
    }

    /// All acknowledgements that may be sent, by packet identifier.
    fn acknowledged(&mut self) -> Vec<u16> {
        self.acknowledgements()
            .map(|acknowledgement| match acknowledgement {
                Acknowledgement::Ack(pkid) | Acknowledgement::Rec(pkid) => pkid,
            })
            .collect()
    }
}

fn payloads(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(&message.payload).unwrap()).collect()
}

fn received(pkids: &[u16]) -> Queue {
    let mut queue = Queue::default();
    queue.connected(false);
    for pkid in pkids {
        queue.receive(QoS::AtLeastOnce, *pkid);
    }
    queue
}

#[test]
fn acknowledges_in_the_order_received() {
    let mut queue = received(&[7, 3, 9]);
    let batch = queue.take();
    assert_eq!(payloads(&batch), ["7", "3", "9"]);
    queue.landed();
    queue.settle(&batch[1]);
    assert_eq!((queue.acknowledged(), queue.unacknowledged()), (vec![], 3));
    queue.settle(&batch[0]);
    assert_eq!((queue.acknowledged(), queue.unacknowledged()), (vec![7, 3], 1));
    queue.settle(&batch[2]);
    assert_eq!((queue.acknowledged(), queue.by_filter()), (vec![9], &[0][..]));
    assert!(queue.is_empty() && queue.bytes == 0);
}

#[test]
fn what_came_back_goes_first_once_nothing_is_in_flight() {
    let mut queue = received(&[1, 2]);
    let first = queue.take();
    queue.receive(QoS::AtLeastOnce, 3);
    let second = queue.take();
    queue.receive(QoS::AtLeastOnce, 4);
    queue.landed();
    queue.settle(&first[1]);
    queue.came_back(first[0].clone());
    assert!(queue.take().is_empty(), "the second batch is in flight");
    queue.landed();
    queue.came_back(second[0].clone());
    assert_eq!(payloads(&queue.take()), ["1", "3", "4"]);
}

#[test]
fn a_dead_letter_does_not_wait_for_what_came_behind_it() {
    let mut queue = received(&[1, 2]);
    let batch = queue.take();
    queue.landed();
    let mut letter = batch[0].clone();
    letter.refuse("no".into(), 1 << 20);
    queue.refused(letter);
    queue.settle(&batch[1]);
    queue.receive(QoS::AtLeastOnce, 3);
    assert!(queue.acknowledged().is_empty());
    let next = queue.take();
    assert_eq!(payloads(&next), ["1", "3"]);
    queue.landed();
    next.iter().for_each(|message| queue.settle(message));
    assert_eq!((queue.acknowledged(), queue.bytes), (vec![1, 2, 3], 0));
}

#[test]
fn a_lost_connection_voids_its_acknowledgements() {
    let mut queue = received(&[1]);
    let batch = queue.take();
    queue.receive(QoS::AtLeastOnce, 2);
    queue.receive(QoS::AtMostOnce, 0);
    queue.connected(true);
    queue.landed();
    queue.settle(&batch[0]);
    assert!(queue.acknowledged().is_empty(), "packet identifiers are the new connection's");
    queue.receive_again(QoS::AtLeastOnce, 1, true);
    queue.receive_again(QoS::AtLeastOnce, 2, true);
    let again = queue.take();
    assert_eq!(payloads(&again), ["0", "1", "2"], "nobody sends what has no acknowledgement again");
    queue.landed();
    again.iter().for_each(|message| queue.settle(message));
    assert_eq!((queue.acknowledged(), queue.bytes), (vec![1, 2], 0));
}

#[test]
fn what_came_back_of_an_earlier_connection_is_forgotten() {
    let mut queue = received(&[1, 2]);
    let batch = queue.take();
    queue.connected(true);
    queue.landed();
    queue.came_back(batch[0].clone());
    let mut letter = batch[1].clone();
    letter.refuse("no".into(), 1 << 20);
    queue.refused(letter);
    assert!(queue.is_empty() && queue.bytes == 0);
}

#[test]
fn a_message_of_qos_2_that_is_settled_is_not_taken_twice() {
    let mut queue = Queue::default();
    queue.connected(false);
    queue.receive(QoS::ExactlyOnce, 5);
    let batch = queue.take();
    queue.landed();
    queue.settle(&batch[0]);
    assert_eq!(queue.acknowledged(), [5]);
    // Its PUBREC was lost with the connection.
    queue.connected(true);
    queue.receive_again(QoS::ExactlyOnce, 5, true);
    assert_eq!((queue.take().len(), queue.acknowledged()), (0, vec![5]));
    queue.released(5);
    // The identifier is free again.
    queue.receive(QoS::ExactlyOnce, 5);
    assert_eq!(queue.take().len(), 1);
    queue.landed();
    // Without the session nothing is known of it.
    queue.received.insert(6);
    queue.connected(false);
    queue.receive_again(QoS::ExactlyOnce, 6, true);
    assert_eq!(queue.take().len(), 1);
}

#[test]
fn an_identifier_that_is_given_out_again_is_another_message() {
    let mut queue = Queue::default();
    queue.connected(false);
    queue.receive(QoS::ExactlyOnce, 7);
    let batch = queue.take();
    queue.landed();
    queue.settle(&batch[0]);
    assert_eq!(queue.acknowledged(), [7]);
    // The broker is back as it was before it heard of that.
    queue.connected(true);
    queue.receive(QoS::ExactlyOnce, 7);
    // It sends the new message again before that is settled.
    queue.connected(true);
    queue.receive_again(QoS::ExactlyOnce, 7, true);
    assert!(queue.acknowledged().is_empty(), "Kafka does not have it");
    assert_eq!(queue.take().len(), 1);
}

#[test]
fn reads_no_more_than_it_has_room_for() {
    let mut queue = Queue::default();
    queue.connected(false);
    let mut count = 0;
    while queue.has_room() {
        queue.receive(QoS::AtMostOnce, 0);
        count += 1;
        assert!(count <= UNACKNOWLEDGED);
    }
    assert!(count > 10_000 && queue.bytes <= BUDGET + 1000, "{count}");
}
