//! What a program asks of the client's task.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::SubscribeError;
use crate::subscription::Queue;
