//! What an error of Kafka or its client library says about a record: the one table.
//! <https://kafka.apache.org/protocol#protocol_error_codes>; codes that begin with `_` are the library's own.

use rdkafka::types::RDKafkaErrorCode;

/// Whom a failed delivery is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The record's own bytes, size or time: if it was alone, it will never be accepted.
    Record,
    /// The topic, or what this client may do there: a human must act.
    Topic,
    /// Nobody: it was not sent, or nothing is known. It may be sent again as it is.
    Nobody,
    /// The client library has no room left.
    Room,
}

pub(crate) fn blame(code: RDKafkaErrorCode) -> Blame {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp => Blame::Record,
        Code::QueueFull => Blame::Room,
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::Fail
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::Authentication
        | Code::SSL
        // What the broker says of a producer, of the moment, or of another record.
        | Code::InvalidDifferentRecord
        | Code::InvalidMessage
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::NotLeaderForPartition
        | Code::LeaderNotAvailable
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::KafkaStorageError => Blame::Nobody,
        _ => Blame::Topic,
    }
}

/// What a human must see to: the brokers will not let this client in however often it tries.
pub(crate) fn needs_human(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::ClusterAuthorizationFailed
            | Code::UnsupportedSASLMechanism
            | Code::InvalidArgument
    )
}

/// As it is told: the error's own words, and its name.
pub(crate) fn words(code: RDKafkaErrorCode) -> String {
    format!("{code} ({code:?})")
}
