//! How much of something may happen in a second.

/// A token bucket, which holds what one second allows. Time is an argument, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    per_second: u64,
    /// In millionths of a token, so that microseconds add up exactly.
    tokens: u64,
    filled_at: u64,
}

/// Millionths of one token.
const TOKEN: u64 = 1_000_000;

impl Budget {
    /// A full one.
    pub(crate) const fn new(per_second: u64, now: u64) -> Self {
        Self {
            per_second,
            tokens: per_second * TOKEN,
            filled_at: now,
        }
    }

    /// Whether one more may happen now; then it counts.
    pub(crate) fn take(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let most = self.per_second * TOKEN;
        self.tokens = self
            .tokens
            .saturating_add(passed.saturating_mul(self.per_second))
            .min(most);
        let left = self.tokens.checked_sub(TOKEN);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, now: u64) -> usize {
        std::iter::from_fn(|| budget.take(now).then_some(()))
            .take(10_000)
            .count()
    }

    #[test]
    fn no_more_passes_than_a_second_allows_and_it_fills_again() {
        let mut budget = Budget::new(500, 7);
        assert_eq!(taken(&mut budget, 7), 500);
        assert_eq!(taken(&mut budget, 1_000 + 7), 0, "half a token");
        assert_eq!(taken(&mut budget, 100_000 + 7), 50);
        assert_eq!(taken(&mut budget, 90_000), 0, "a clock that goes back brings nothing");
        assert_eq!(taken(&mut budget, 3_600_000_000), 500, "it holds one second's");
    }
}
