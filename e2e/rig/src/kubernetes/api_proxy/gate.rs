//! Lets one write of each of an operator's lives through, so that it can be killed right after it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::call::Call;

/// When an operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After the API server has done what it asked for, before it is told.
    Unanswered,
    /// After it was told, before it writes anything else.
    Answered,
}

/// The gate before the API server.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Everything passes.
    #[default]
    Open,
    /// The next write is the last of this life.
    Armed(Moment, oneshot::Sender<Call>),
    /// A write is on its way that is the last of this life, if it is done.
    Trying(Moment, oneshot::Sender<Call>),
    /// It was the last, and the operator knows or may know: whoever writes next, or a moment, ends its life.
    Spent(Call, oneshot::Sender<Call>),
    /// Nothing passes.
    Shut,
}

/// What a write may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// Go on.
    Free,
    /// Go on, and say how it went: [`Gate::done`].
    Last,
    /// Wait for the end: it is never passed on.
    Never,
}

impl Gate {
    /// A new life, which ends with its next write: then that call is told.
    pub(super) fn arm(&self, moment: Moment) -> oneshot::Receiver<Call> {
        let (tell, told) = oneshot::channel();
        *self.lock() = State::Armed(moment, tell);
        told
    }

    /// Everything passes again.
    pub(super) fn open(&self) {
        *self.lock() = State::Open;
    }

    pub(super) fn enter(&self) -> Passage {
        let mut state = self.lock();
        let (passage, next) = match std::mem::replace(&mut *state, State::Shut) {
            State::Open => (Passage::Free, State::Open),
            State::Armed(moment, tell) => (Passage::Last, State::Trying(moment, tell)),
            // Two controllers write at once: the second one's write would be a second one of this life.
            State::Trying(moment, tell) => (Passage::Never, State::Trying(moment, tell)),
            State::Spent(last, tell) => {
                // Nobody listens: then nobody wants to kill.
                drop(tell.send(last));
                (Passage::Never, State::Shut)
            }
            State::Shut => (Passage::Never, State::Shut),
        };
        *state = next;
        passage
    }

    /// How the last write went; says whether the operator may be told. One that was refused was none.
    pub(super) fn done(&self, call: &Call, done: bool) -> bool {
        let mut state = self.lock();
        let (told, next) = match std::mem::replace(&mut *state, State::Shut) {
            State::Trying(moment, tell) if !done => (true, State::Armed(moment, tell)),
            State::Trying(Moment::Unanswered, tell) => {
                drop(tell.send(call.clone()));
                (false, State::Shut)
            }
            State::Trying(Moment::Answered, tell) => (true, State::Spent(call.clone(), tell)),
            other => (true, other),
        };
        *state = next;
        told
    }

    /// The moment is over in which the operator might have written more.
    pub(super) fn expire(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Spent(..))
            && let State::Spent(last, tell) = std::mem::replace(&mut *state, State::Shut)
        {
            drop(tell.send(last));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::api_proxy::Verb;

    fn call(name: &str) -> Call {
        Call {
            verb: Verb::Patch,
            resource: "secrets".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn one_write_passes_and_is_not_answered() {
        let gate = Gate::default();
        assert_eq!(gate.enter(), Passage::Free);
        let mut told = gate.arm(Moment::Unanswered);
        assert_eq!(gate.enter(), Passage::Last);
        assert_eq!(gate.enter(), Passage::Never, "another controller's");
        assert!(gate.done(&call("refused"), false));
        assert_eq!(gate.enter(), Passage::Last, "what was refused was no write");
        assert!(!gate.done(&call("a"), true));
        assert_eq!(told.try_recv().unwrap().name, "a");
        assert_eq!(gate.enter(), Passage::Never);
    }

    #[test]
    fn one_write_passes_and_is_answered_and_the_next_one_ends_it() {
        let gate = Gate::default();
        let mut told = gate.arm(Moment::Answered);
        assert_eq!(gate.enter(), Passage::Last);
        assert!(gate.done(&call("a"), true));
        assert!(told.try_recv().is_err());
        assert_eq!(gate.enter(), Passage::Never);
        assert_eq!(told.try_recv().unwrap().name, "a");
        let mut told = gate.arm(Moment::Answered);
        assert_eq!(gate.enter(), Passage::Last);
        assert!(gate.done(&call("b"), true));
        gate.expire();
        assert_eq!(told.try_recv().unwrap().name, "b");
    }
}
