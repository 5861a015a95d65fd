//! The reasons of conditions and events: what people and tools match on. Renaming one breaks them.

use std::fmt;

/// Makes the enum, so that each name is written once.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The reason of a condition or an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word as people see it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// All pods run the declared ring, with nothing waiting.
    Forwarding,
    /// `spec.suspend` is true, and no pods run.
    Suspended,
    /// `spec.replicas` is 0, and no pods run.
    ScaledToZero,
    /// Pods, or servers, are ending.
    ScalingDown,
    /// A server is being added.
    ScalingUp,
    /// Pods, or servers, are being replaced.
    RollingOut,
    /// The pods' template has changed.
    RolloutStarted,
    /// A rollout has not moved for long.
    ProgressDeadlineExceeded,
    /// Kubernetes refuses to make pods.
    PodsNotCreated,
    /// A pod does not come up.
    PodsNotReady,
    /// Pods have not told yet whether they are new enough.
    PodsNotAsked,
    /// Pods are too old for what is declared.
    PodsTooOld,
    /// The key that signs announcements is another one than before.
    BeaconKeyChanged,
    /// Pods cannot announce the ring on a cluster.
    BeaconFailing,
    /// A new ring was declared.
    RingChanged,
    /// Pods take up a ring, or may still publish to what has left it.
    RingConverging,
    /// A pod claims an epoch that is not believed.
    EpochClaimIgnored,
    /// Pods do not have the newest credentials yet.
    CredentialsPropagating,
    /// No cluster can be a member of the ring.
    NoClusters,
    /// A cluster was left out of the ring.
    ClusterExcluded,
    /// Clusters are left out of the ring.
    ClustersExcluded,
    /// A member's spec cannot be used, and it goes on as before.
    ClusterInvalid,
    /// Another cluster has the name in the ring.
    DuplicateRingName,
    /// The operator has not looked at the cluster yet.
    NotObserved,
    /// The cluster is being deleted.
    Deleting,
    /// Forwarders leave the cluster.
    Draining,
    /// No forwarder publishes to the cluster any more.
    Drained,
    /// The cluster goes although forwarders may still publish to it.
    DrainForced,
    /// Another forwarder has the topic and the consumer group.
    SourceTaken,
    /// Pods of another source end first.
    SourceChanging,
    /// There is no such channel.
    ChannelMissing,
    /// The channel is not ready.
    ChannelNotReady,
    /// The channel does not let this namespace in, or is not there.
    NotGranted,
    /// The API server does not let the operator read something.
    ReadFailed,
    /// A person must change the spec.
    InvalidSpec,
    /// An object with another owner has the name of a child.
    NameTaken,
    /// A child is still being deleted.
    ChildDeleting,
    /// A child could not be written.
    ApplyFailed,
    /// There is no such Secret.
    SecretMissing,
    /// The Secret has no such key.
    SecretKeyMissing,
    /// The Secret holds what cannot be used.
    SecretInvalid,
    /// The Secret does not say that it may be used.
    SecretNotOptedIn,
    /// The operator has removed list items that it had not declared.
    ForeignItemsRemoved,
    /// List items that the operator has not declared stay.
    ForeignItemsLeft,
    /// No server, or broker, answers.
    Unreachable,
    /// What answers cannot be used.
    Unsupported,
    /// TLS does not come about.
    TlsFailed,
    /// The brokers do not accept the credentials.
    AuthenticationFailed,
    /// The servers do not accept the credentials.
    AuthorizationFailed,
    /// The brokers know the operator and refuse it.
    NotAuthorized,
    /// The connection's files or settings cannot be used.
    ClientFailed,
    /// A server lets the operator in.
    Connected,
    /// The operator has not checked yet whether clients can log in.
    NotConnected,
    /// All servers are healthy and complete.
    ServersReady,
    /// The StatefulSet is new or has changed.
    ServersStarting,
    /// Another hand has changed the number of servers, and it is put back.
    ServersRestored,
    /// A server does not run yet.
    ServerStarting,
    /// A server ends.
    ServerStopping,
    /// A server runs and is not well.
    ServerUnhealthy,
    /// A server that was taken away comes back.
    ServerComesBack,
    /// A server has not joined the others yet.
    ServerJoining,
    /// A server does not know all streams yet.
    ServerCatchingUp,
    /// Running servers have other passwords than declared.
    ServerPasswordsLost,
    /// Servers run another version than declared.
    VersionDiffers,
    /// The servers have not agreed upon who places streams.
    NoMetaLeader,
    /// A stream, or a consumer, has no leader.
    NoStreamLeader,
    /// A server has not said which streams it has.
    StreamsUnknown,
    /// A stream's copy is not complete.
    StreamCatchingUp,
    /// A stream has more copies than servers are declared.
    StreamReplicas,
    /// A stream's only copy is on a server that is to go.
    StreamNotReplicated,
    /// A stream's only copy is in the memory of a server that is to restart.
    StreamWouldBeLost,
    /// A server that is to restart may not be evicted.
    EvictionRefused,
    /// The topic is there as declared.
    TopicReady,
    /// There is no such topic, and the operator does not make it.
    TopicMissing,
    /// The topic is being created or changed.
    TopicPending,
    /// The brokers refuse what is declared, for now.
    TopicRefused,
    /// The brokers refuse what is declared, for good.
    TopicInvalid,
    /// The deleted topic is still used.
    TopicInUse,
    /// The topic could not be deleted yet.
    TopicDeletionFailed,
    /// The operator has created the topic.
    TopicCreated,
    /// The operator has changed the topic's settings.
    TopicConfigured,
    /// The operator has deleted the topic.
    TopicDeleted,
    /// The topic stays after its channel.
    TopicLeft,
    /// The operator has added partitions.
    PartitionsAdded,
    /// The effect of more partitions is not acknowledged.
    PartitionIncreaseNotAcknowledged,
    /// The topic has more partitions than declared.
    Partitions,
    /// The topic's partitions have other numbers of copies than declared.
    ReplicationFactor,
    /// The topic's settings are others than declared.
    Config,
}

impl Reason {
    /// Reads a word of a status; none: this version of the operator does not know it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }

    /// Whether a Secret is missing or cannot be used.
    #[must_use]
    pub const fn is_of_secret(self) -> bool {
        matches!(
            self,
            Self::SecretMissing | Self::SecretKeyMissing | Self::SecretInvalid | Self::SecretNotOptedIn
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tests expect the words that people see.
#[cfg(test)]
impl PartialEq<&str> for Reason {
    fn eq(&self, word: &&str) -> bool {
        self.as_str() == *word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and scripts match on these words: one that changes breaks them.
    const WORDS: &str = "\
        Forwarding Suspended ScaledToZero ScalingDown ScalingUp RollingOut RolloutStarted ProgressDeadlineExceeded \
        PodsNotCreated PodsNotReady PodsNotAsked PodsTooOld BeaconKeyChanged BeaconFailing RingChanged RingConverging \
        EpochClaimIgnored CredentialsPropagating NoClusters ClusterExcluded ClustersExcluded ClusterInvalid DuplicateRingName \
        NotObserved Deleting Draining Drained DrainForced SourceTaken SourceChanging ChannelMissing ChannelNotReady \
        NotGranted ReadFailed InvalidSpec NameTaken ChildDeleting ApplyFailed SecretMissing SecretKeyMissing \
        SecretInvalid SecretNotOptedIn ForeignItemsRemoved ForeignItemsLeft Unreachable Unsupported TlsFailed \
        AuthenticationFailed AuthorizationFailed NotAuthorized ClientFailed Connected NotConnected ServersReady \
        ServersStarting ServersRestored ServerStarting ServerStopping ServerUnhealthy ServerComesBack ServerJoining \
        ServerCatchingUp ServerPasswordsLost VersionDiffers NoMetaLeader NoStreamLeader StreamsUnknown \
        StreamCatchingUp StreamReplicas StreamNotReplicated StreamWouldBeLost EvictionRefused TopicReady TopicMissing \
        TopicPending TopicRefused TopicInvalid TopicInUse TopicDeletionFailed TopicCreated TopicConfigured \
        TopicDeleted TopicLeft PartitionsAdded PartitionIncreaseNotAcknowledged Partitions ReplicationFactor Config";

    #[test]
    fn the_words_are_those_that_were_always_shown() {
        let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.join(" "), WORDS);
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
            assert_eq!(reason.to_string(), reason.as_str());
        }
        assert_eq!(Reason::parse("Nonsense"), None);
    }
}
