use super::*;

fn primary(host: Value, port: i64) -> Value {
    Value::Array(vec![host, port.into(), "id".into()])
}

fn range(first: i64, last: i64, primary: Value) -> Value {
    Value::Array(vec![first.into(), last.into(), primary])
}

#[test]
fn owners_of_slots() {
    let answering = Server::new("answering", 1);
    let owner_of = |host: Value| {
        let reply =
            Value::Array(vec![range(0, 5, primary("10.0.0.1".into(), 7)), range(6, 6, primary(host, 8))]);
        owners(reply, &answering).map(|ranges| (ranges[1].first, ranges[1].last, ranges[1].server.clone()))
    };
    for (host, expected) in [
        ("10.0.0.2".into(), "10.0.0.2"),
        ("".into(), "answering"),
        ("?".into(), "answering"),
        (Value::Null, "answering"),
    ] {
        assert_eq!(owner_of(host), Some((6, 6, Server::new(expected, 8))));
    }
    let bad = |first: i64, last: i64| {
        owners(Value::Array(vec![range(first, last, primary("h".into(), 7))]), &answering)
    };
    assert_eq!((bad(7, 6), bad(0, 16384), bad(-1, 3)), (None, None, None));
    assert_eq!(owners(Value::Null, &answering), None);
}

#[test]
fn a_node_that_has_moved_a_slot_is_believed() {
    let config = crate::settings::RedisSettings {
        url: Some(crate::settings::Secret::new("redis-cluster://127.0.0.1:1")),
        host: String::new(),
        port: 0,
        username: None,
        password: None,
        tls: None,
        db: 0,
        pool_size: 1,
        retry: crate::settings::RetrySettings { max_retries: 1, base: Duration::ZERO, cap: Duration::ZERO },
        health_check_interval: Duration::ZERO,
    };
    let mut cluster = Cluster::new(Connector::new(config).expect("it is a URL"));
    cluster.stale = false;
    let from = Server::new("10.0.0.1", 7);
    let mut moved = |words: &str| {
        let followed = cluster.has_moved(3, words, Some(&from));
        let owner = cluster.servers.get(usize::from(cluster.owners[3])).map(ToString::to_string);
        (followed, owner, std::mem::take(&mut cluster.stale))
    };
    let at = |place: &str| Some(place.to_owned());
    assert_eq!(moved("LOADING Redis is loading"), (false, None, false));
    assert_eq!(moved("ASK 3 10.0.0.2:8"), (false, None, false));
    assert_eq!(moved("CLUSTERDOWN Hash slot not served"), (false, None, true));
    assert_eq!(moved("MOVED 3 10.0.0.2:8"), (true, at("10.0.0.2:8"), true));
    assert_eq!(moved("MOVED 3 :9"), (true, at("10.0.0.1:9"), true));
    assert_eq!(moved("MOVED 3 ::1:9"), (true, at("::1:9"), true));
}
