//! What happened since the last time that somebody asked.

use std::time::{Duration, Instant};

use crate::json::Json;

pub struct Window {
    start: Instant,
    /// Rounds in which every environment was committed.
    pub commits: u64,
    /// Transactions that failed, for want of room in the map or for another reason.
    pub errors: u64,
    pub map_full: u64,
    latencies: Vec<u64>,
}

impl Window {
    pub fn new() -> Window {
        Window { start: Instant::now(), commits: 0, errors: 0, map_full: 0, latencies: Vec::new() }
    }

    /// Note how long a transaction took that succeeded, from its begin to the end of its commit.
    pub fn note(&mut self, latency: Duration) {
        self.latencies.push(latency.as_micros() as u64);
    }

    pub fn report(mut self) -> Vec<(&'static str, Json)> {
        self.latencies.sort_unstable();
        vec![
            ("seconds", Json::Seconds(self.start.elapsed().as_secs_f64())),
            ("commits", Json::Number(self.commits)),
            ("errors", Json::Number(self.errors)),
            ("map_full", Json::Number(self.map_full)),
            ("p50_us", Json::Number(self.quantile(50))),
            ("p99_us", Json::Number(self.quantile(99))),
            ("max_us", Json::Number(self.quantile(100))),
        ]
    }

    /// The latency that `percent` of the transactions did not exceed; 0 without any.
    fn quantile(&self, percent: usize) -> u64 {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        rank.checked_sub(1).map_or(0, |index| self.latencies[index])
    }
}
