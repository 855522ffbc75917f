//! Constructors of metrics. They also register each metric, so that the registry contains every metric.

use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result,
};

/// Ignores the result of a removal. The removal of a series that was never created fails, which is harmless.
pub(super) fn gone(_removed: Result<()>) {}

/// Constructor of metrics in a registry.
pub(super) struct Families<'r>(pub(super) &'r Registry);

impl Families<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(name, help)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Returns a gauge whose value may be a fraction.
    pub(super) fn rate(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Gauge::new(name, help)?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }

    /// Creates a metric whose value is always 1 and whose labels contain the information.
    pub(super) fn constant(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let opts = Opts::new(name, "Always 1; the labels name the running versions");
        let opts = labels.iter().fold(opts, |opts, (name, value)| opts.const_label(*name, *value));
        self.add(IntGauge::with_opts(opts)?)?.set(1);
        Ok(())
    }

    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// Counters of responses by status code. Each counter is looked up when its code is first seen.
pub(super) struct ByStatus {
    counters: IntCounterVec,
    cells: [OnceLock<IntCounter>; 500],
}

impl ByStatus {
    const FIRST: u16 = 100;

    pub(super) fn new(counters: IntCounterVec) -> Self {
        ByStatus { counters, cells: [const { OnceLock::new() }; 500] }
    }

    /// Returns the counter of a status. A code outside the range of HTTP counts as the nearest code within it.
    pub(super) fn counter(&self, status: u16) -> &IntCounter {
        let index = usize::from(status.saturating_sub(Self::FIRST)).min(self.cells.len() - 1);
        let label = || (usize::from(Self::FIRST) + index).to_string();
        self.cells[index].get_or_init(|| self.counters.with_label_values(&[&label()]))
    }

    /// Returns the number of responses so far, and the number of 5xx responses among them.
    pub(super) fn totals(&self) -> (u64, u64) {
        let sum = |cells: &[OnceLock<IntCounter>]| {
            cells.iter().filter_map(OnceLock::get).map(IntCounter::get).sum()
        };
        (sum(&self.cells), sum(&self.cells[400..]))
    }
}
